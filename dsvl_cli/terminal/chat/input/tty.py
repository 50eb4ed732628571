"""Turns off the terminal's echo during a chat, so that type-ahead does not mix with an answer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator


class SilentTty:
    """A context in which keys are not echoed but buffered for the next prompt; Ctrl-C still sends a signal.

    Does nothing if stdin is not a POSIX terminal.
    """

    def __init__(self, stdin: TextIO) -> None:
        self._stdin = stdin
        self._before: list[Any] | None = None

    def __enter__(self) -> SilentTty:
        self._before = _attributes(self._stdin)
        self._silence()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Restore the terminal's original settings for another program."""
        self._restore()
        try:
            yield
        finally:
            self._silence()

    def _silence(self) -> None:
        if self._before is None:
            return
        import termios

        silent = [*self._before]
        silent[0] &= ~termios.ICRNL  # otherwise Enter, typed ahead, would arrive as Ctrl-J
        silent[3] &= ~(termios.ECHO | termios.ICANON)
        _set_attributes(self._stdin, silent)

    def _restore(self) -> None:
        if self._before is not None:
            _set_attributes(self._stdin, self._before)


def _attributes(stdin: TextIO) -> list[Any] | None:
    try:
        import termios
    except ImportError:  # Windows
        return None
    try:
        return termios.tcgetattr(stdin.fileno())
    except (termios.error, OSError, ValueError):
        return None


def _set_attributes(stdin: TextIO, attributes: list[Any]) -> None:
    import termios
    from contextlib import suppress

    with suppress(termios.error, OSError, ValueError):  # the terminal may have been closed
        termios.tcsetattr(stdin.fileno(), termios.TCSADRAIN, attributes)

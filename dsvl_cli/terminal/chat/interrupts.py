"""Ctrl-C in a chat: only handled where it is safe."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType


class Interrupts:
    """A context in which Ctrl-C raises KeyboardInterrupt only inside `listening`, and is otherwise deferred until then.

    This way no output line, text or save is left incomplete. If it is not entered, or outside the main thread, which
    receives no signals, Ctrl-C behaves as usual.
    """

    def __init__(self) -> None:
        self._pending = False
        self._listening = False
        self._previous: Any = None
        self._installed = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous or signal.SIG_DFL)
            self._installed = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let Ctrl-C through, including one pressed earlier.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        try:
            self._listening = True
            if self._pending:
                self._pending = False
                raise KeyboardInterrupt
            yield
        finally:
            self._listening = False

    def forget(self) -> None:
        """Discard a pending Ctrl-C."""
        self._pending = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._listening:
            raise KeyboardInterrupt
        self._pending = True

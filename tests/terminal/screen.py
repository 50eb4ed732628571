"""A program in a pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import pyte

_EMPTY = "> /help, drop a picture, Ctrl-D leaves"


class _AnsweringScreen(pyte.HistoryScreen):
    """Answers a program that asks where the cursor is, as terminals do."""

    def __init__(self, columns: int, lines: int, answer: Callable[[str], None]) -> None:
        super().__init__(columns, lines, history=10_000)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data)


class Screen:
    """Runs a command in a terminal of so many columns and lines; as a context, ends it.

    Attributes:
        raw: all bytes that the program wrote.
    """

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], columns: int = 80, lines: int = 24
    ) -> None:
        self._screen = _AnsweringScreen(columns, lines, self._answer)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], list(command), dict(variables))
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._terminal)
        try:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return

    def type(self, keys: str) -> None:
        """Type keys; Enter is `\\r`."""
        data = keys.encode()
        while data:
            self._read(0.0)
            data = data[os.write(self._terminal, data[:512]) :]

    def wait_for(self, text: str, seconds: float = 60.0) -> float:
        """Wait until the text stands on the screen or above it; return after how many seconds."""
        begun = time.monotonic()
        while text not in self.text():
            if time.monotonic() - begun > seconds:
                raise AssertionError(f"{text!r} did not appear in:\n{self.text()}")
            self._read(0.05)
        return time.monotonic() - begun

    def wait_for_prompt(self, seconds: float = 60.0) -> None:
        """Wait until the last line above the toolbar is an empty prompt, with its placeholder where that fits."""
        begun = time.monotonic()
        while [line for line in self.visible().splitlines() if line][-2:-1] not in ([">"], [_EMPTY]):
            if time.monotonic() - begun > seconds:
                raise AssertionError(f"no prompt:\n{self.text()}")
            self._read(0.05)

    def end(self, seconds: float = 60.0) -> int:
        """Wait until the program has ended; return its exit status, 128 + n for the signal n."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._read(0.05)
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        raise AssertionError(f"it goes on:\n{self.text()}")

    def rest(self, seconds: float = 0.3) -> str:
        """Let the program write for so long; return the screen."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._read(0.05)
        return self.text()

    def text(self) -> str:
        """All lines: those that have scrolled away, then the screen's, without spaces at their ends."""
        above = ["".join(line[x].data for x in range(self._screen.columns)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self._screen.display]).rstrip()

    def visible(self) -> str:
        """The lines of the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def _answer(self, data: str) -> None:
        os.write(self._terminal, data.encode())

    def _read(self, seconds: float) -> None:
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        if not ready:
            return
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # the program has ended
            return
        self.raw += data
        self._stream.feed(data)

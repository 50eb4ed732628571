"""Ctrl-C while an answer comes: taken where it does no harm."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

T = TypeVar("T")


class Interruptible:
    """Within it, Ctrl-C raises KeyboardInterrupt only inside `next`, never between: no half-written line, no lost text.

    Outside the main thread, where no signal arrives, it does nothing.
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

    def next(self, iterator: Iterator[T]) -> T | None:
        """The iterator's next value, None at its end; interrupted also by a Ctrl-C since the value before.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        self._listening = True
        try:
            if self._pending:
                raise KeyboardInterrupt
            return next(iterator, None)
        finally:
            self._listening = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._pending = True
        if self._listening:
            raise KeyboardInterrupt

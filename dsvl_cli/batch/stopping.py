"""Handles termination signals: the first finishes the requests in flight, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class StopSignals:
    """Context manager in which the first SIGINT, SIGTERM or SIGHUP calls `stop`; a second has its default effect.

    Signals that were already ignored stay ignored, for `nohup`.

    Attributes:
        number: the number of the received signal; None if none was received.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.number: int | None = None
        self._stop = stop
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _SIGNALS:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:  # received between the two statements below
            signal.signal(number, signal.SIG_DFL)
            with suppress(OSError):
                os.kill(os.getpid(), number)
        self.number = number
        for each in self._previous:  # the next signal ends the process even if Python is busy
            signal.signal(each, signal.SIG_DFL)
        self._stop()

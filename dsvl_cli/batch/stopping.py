"""Signals that ask a long job to end: the first lets it finish what it has in hand, the second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # SIGHUP is not there on Windows


class StopSignals:
    """Within it, SIGINT, SIGTERM and SIGHUP call `stop` once; the next one ends the process as if nobody listened.

    A signal that was ignored before stays so: `nohup` means it.

    Attributes:
        number: of the signal that came; None while none has.
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
        if self.number is not None:  # one that came between the two lines below
            signal.signal(number, signal.SIG_DFL)
            with suppress(OSError):
                os.kill(os.getpid(), number)
        self.number = number
        for each in self._previous:  # the system itself ends the process then, whatever it is busy with
            signal.signal(each, signal.SIG_DFL)
        self._stop()

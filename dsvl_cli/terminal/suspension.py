"""Notices that the process was suspended (Ctrl-Z) and resumed (`fg`): what it drew before may be elsewhere now."""

from __future__ import annotations

import signal
import threading


class _Resumptions:
    def __init__(self) -> None:
        self.count = 0
        self._is_watching = False

    def watch(self) -> None:
        number = getattr(signal, "SIGCONT", None)  # not on Windows
        if self._is_watching or number is None or threading.current_thread() is not threading.main_thread():
            return
        self._is_watching = True
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.count += 1


_RESUMPTIONS = _Resumptions()


def count_resumed() -> int:
    """Return how often the process has been resumed since the first call, which starts watching."""
    _RESUMPTIONS.watch()
    return _RESUMPTIONS.count

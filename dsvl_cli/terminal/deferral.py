"""Lets signals wait while torch is imported, which takes about a second."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Let signals that end the program wait until the block has ended.

    An exception that a handler raises within the C++ code of torch's import is lost there, or aborts the process.
    Windows has no such waiting; there, and in other threads, nothing changes.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = {getattr(signal, name) for name in _ENDING_SIGNALS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

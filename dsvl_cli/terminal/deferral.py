"""Lets signals wait while torch is imported, which takes about a second."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Let signals that end the program wait until the block has ended.

    An exception that a handler raises within the C++ code of torch's import is lost there, or aborts the process. To
    block the signals would not do: another thread of the process would get them. In other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {
        number: handler
        for name in ENDING_SIGNALS
        if (number := getattr(signal, name, None)) is not None and callable(handler := signal.getsignal(number))
    }
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])

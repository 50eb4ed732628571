"""Measures the anonymous memory of this process, which excludes memory-mapped files. Linux only."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

POLL_SECONDS = 0.005


def read_anonymous() -> int:
    """Return the anonymous memory of this process in bytes (RssAnon)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status tells no RssAnon")


class Peak:
    """Peak anonymous memory within a `with` block, in bytes."""

    def __init__(self) -> None:
        self.bytes = read_anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self.bytes = max(self.bytes, read_anonymous())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self.bytes = max(self.bytes, read_anonymous())

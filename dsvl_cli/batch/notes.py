"""What is to be said about pictures, once for all that it is true of."""

from __future__ import annotations

import re
import threading

_NUMBER = re.compile(r"[0-9][0-9,]*")
_MOST = 3


class Notes:
    """Collects notes about pictures; those that only differ in their numbers count as one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, tuple[int, str]] = {}  # the note without numbers -> count, the first one

    def add(self, name: str, note: str) -> None:
        """Add a note about a picture."""
        kind = _NUMBER.sub("0", note)
        with self._lock:
            count, first = self._found.get(kind, (0, f"{name}: {note}"))
            self._found[kind] = count + 1, first

    def lines(self) -> list[str]:
        """Return the most common notes, each as one line with the first picture of its kind."""
        most = sorted(self._found.values(), key=lambda entry: -entry[0])[:_MOST]
        return [first if count == 1 else f"{first}; and {count - 1:,} more like it" for count, first in most]

"""Suggests what was meant by the name of a file that does not exist."""

from __future__ import annotations

import difflib
import functools
import itertools
import os
from bisect import bisect_left
from pathlib import Path

_COMPARED = 10  # names, before and after where the missing one would be


def suggest_name(path: Path) -> str | None:
    """Return a hint that names the most similar file beside a missing one, or None if none is similar."""
    try:
        names, reversed_names = _list_names(str(path.parent), path.parent.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None
    # Comparing with thousands of names would take 0.1 s and more: only those with a similar beginning or end.
    candidates = {
        *_neighbours(names, path.name),
        *(name[::-1] for name in _neighbours(reversed_names, path.name[::-1])),
    }
    similar = difflib.get_close_matches(path.name, sorted(candidates), n=1, cutoff=0.75)
    return f"did you mean {path.with_name(similar[0])}?" if similar else None


@functools.lru_cache(maxsize=1)
def _list_names(folder: str, _changed: int) -> tuple[list[str], list[str]]:
    """List a folder for hints, once for all names missing in it: names in order, and reversed ones in order."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, 5_000)]
    return sorted(names), sorted(name[::-1] for name in names)


def _neighbours(names: list[str], name: str) -> list[str]:
    index = bisect_left(names, name)
    return names[max(0, index - _COMPARED) : index + _COMPARED]

"""Finds what was meant by the name of a file that does not exist."""

from __future__ import annotations

import difflib
import functools
import itertools
import os
import unicodedata
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


def find_file(path: str) -> str | None:
    """Return the path of a file: as given, or spelled with other spaces and accents; None if there is none.

    Spellings differ in the kind of their spaces (macOS puts U+202F into the names of screenshots) and in the form of
    their accents (one character, or a letter and an accent). If several files fit, none is returned.
    """
    if os.path.isfile(path):
        return path
    found = ""
    for part in Path(path).parts:
        exact = os.path.join(found, part)
        if not os.path.lexists(exact):
            alike = _list_alike(found or os.curdir).get(_plain_spelling(part), ()) if _has_spellings(part) else ()
            if len(alike) != 1:
                return None
            exact = os.path.join(found, alike[0])
        found = exact
    return found if os.path.isfile(found) else None


def _list_alike(folder: str) -> dict[str, list[str]]:
    try:
        return _spellings(folder, os.stat(folder).st_mtime_ns)
    except (OSError, ValueError):
        return {}


@functools.lru_cache(maxsize=4)
def _spellings(folder: str, _changed: int) -> dict[str, list[str]]:
    """List the names in a folder that have other spellings, by their plain ones."""
    found: dict[str, list[str]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if _has_spellings(entry.name):
                found.setdefault(_plain_spelling(entry.name), []).append(entry.name)
    return found


def _has_spellings(name: str) -> bool:
    return " " in name or not name.isascii()


def _plain_spelling(name: str) -> str:
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in name)
    return unicodedata.normalize("NFC", spaced)


@functools.lru_cache(maxsize=1)
def _list_names(folder: str, _changed: int) -> tuple[list[str], list[str]]:
    """List a folder for hints, once for all names missing in it: names in order, and reversed ones in order."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, 5_000)]
    return sorted(names), sorted(name[::-1] for name in names)


def _neighbours(names: list[str], name: str) -> list[str]:
    index = bisect_left(names, name)
    return names[max(0, index - _COMPARED) : index + _COMPARED]

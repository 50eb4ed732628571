"""Finds the files that match a glob pattern; `**` enters each real folder once, so that links in a circle end."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

_ANY_DEPTH = "**"


def match_files(pattern: str) -> list[str]:
    """Return what matches a pattern, in no particular order; `**` matches folders at any depth, but no hidden ones.

    The standard library follows links at every depth: two links in a circle have it try 2^40 paths.
    """
    parts = pattern.split(os.sep)
    if _ANY_DEPTH not in parts:
        return glob.glob(pattern)
    index = parts.index(_ANY_DEPTH)
    base, rest = os.sep.join(parts[:index]), os.sep.join(parts[index + 1 :])
    while rest.startswith(_ANY_DEPTH + os.sep):
        rest = rest.removeprefix(_ANY_DEPTH + os.sep)
    bases = glob.glob(base) if glob.has_magic(base) else [base or (os.sep if index else "")]
    found: dict[str, None] = {}
    entered: set[tuple[int, int]] = set()
    for each in bases:
        for folder in _folders(each, entered):
            if rest:
                prefix = glob.escape(os.path.join(folder, "")) if folder else ""
                found.update(dict.fromkeys(match_files(prefix + rest)))
            else:
                found.update(dict.fromkeys(_files(folder)))
    return list(found)


def _folders(base: str, entered: set[tuple[int, int]]) -> Iterator[str]:
    """Yield a folder and those below it, each real one once, those nearer to it first."""
    level = [base]
    while level:
        following: list[str] = []
        for folder in level:
            try:
                status = os.stat(folder or os.curdir)
                if (status.st_dev, status.st_ino) in entered:
                    continue
                entered.add((status.st_dev, status.st_ino))
                with os.scandir(folder or os.curdir) as entries:
                    names = sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
            except OSError:
                continue
            yield folder
            following += [os.path.join(folder, name) for name in names]
        level = following


def _files(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder or os.curdir) as entries:
            names = [entry.name for entry in entries if entry.name[0] != "."]
    except OSError:
        return
    yield from (os.path.join(folder, name) for name in names)

"""A set of files that knows a file under each of its names."""

from __future__ import annotations

import os
from collections.abc import Iterable


class PathSet:
    """Compares files by device and inode, and those that do not exist yet by their real folder and their name.

    Attributes:
        names, inodes: of the files; whoever has an entry of a folder can look there first.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]] = ()) -> None:
        self.names: set[str] = set()
        self.inodes: set[int] = set()
        self._places: set[str] = set()
        self._files: set[tuple[int, int]] = set()
        for path in paths:
            self.add(path)

    def add(self, path: str | os.PathLike[str]) -> None:
        """Add a file."""
        place, file = _identify(path)
        self._places.add(place)
        self.names.add(os.path.basename(place))
        if file is not None:
            self._files.add(file)
            self.inodes.add(file[1])

    def __contains__(self, path: object) -> bool:
        """Whether a file is in the set, under whatever name."""
        assert isinstance(path, (str, os.PathLike))
        place, file = _identify(path)
        return place in self._places or file in self._files

    def may_hold(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry of a folder has the name or the inode of a file of the set; free where listing gives it."""
        return os.path.normcase(entry.name) in self.names or (os.name != "nt" and entry.inode() in self.inodes)


def _identify(path: str | os.PathLike[str]) -> tuple[str, tuple[int, int] | None]:
    folder, name = os.path.split(os.path.abspath(path))
    try:
        status = os.stat(path)
        file = (status.st_dev, status.st_ino) if status.st_ino else None
    except (OSError, ValueError):
        file = None
    return os.path.normcase(os.path.join(os.path.realpath(folder), name)), file

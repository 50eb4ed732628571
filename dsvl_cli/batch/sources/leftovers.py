"""Files in folders of pictures that are not anybody's pictures: thumbnails, previews, waste, of systems and programs.

They are left out of folders, patterns and archives, and counted; a file that is named itself is always taken.
"""

from __future__ import annotations

import fnmatch
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

# Of whole folders, in lower case. Those that begin with a dot are hidden, and listed here to be counted.
_FOLDERS = frozenset(
    {
        # Synology, QNAP
        "@eadir", "#recycle", "#snapshot", "@tmp", "@recycle", "@recently-snapshot", ".@__thumb", ".streams",
        # desktops
        ".thumbnails", ".thumb", ".sh_thumbnails", ".xvpics", ".trash", ".trashes", ".spotlight-v100", ".fseventsd",
        ".documentrevisions-v100", ".temporaryitems", "__macosx", "lost+found", "$recycle.bin", "recycler",
        "system volume information",
        # programs
        ".picasaoriginals", "ipod photo cache", ".dtrash", ".stversions", ".stfolder", ".comments", ".immich",
    }
)  # fmt: skip
_FOLDER_PATTERNS = (".trash-*", "*.lrdata", "*.cocatalogdb")
_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".ds_store", ".picasa.ini"})
_FILE_PATTERNS = ("._*", ".pictureframe.*", ".fuse_hidden*", ".nfs*")


def is_leftover_folder(name: str) -> bool:
    """Whether a folder is one that systems and programs make for themselves, by its name."""
    folded = name.lower()
    return folded in _FOLDERS or any(fnmatch.fnmatchcase(folded, pattern) for pattern in _FOLDER_PATTERNS)


def is_leftover_file(name: str) -> bool:
    """Whether a file is one that systems and programs make for themselves, by its name."""
    folded = name.lower()
    return folded in _FILES or any(fnmatch.fnmatchcase(folded, pattern) for pattern in _FILE_PATTERNS)


class Skipped:
    """Counts what was left out, and gives examples; for one thread at a time.

    Attributes:
        excluded: the number of files and folders that a pattern of the user's excluded.
        exclusion: these patterns, to name those that match nothing.
    """

    def __init__(self) -> None:
        self.excluded = 0
        self.exclusion = Exclusion()
        self._leftovers: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count a thumbnail, a system file or a folder of them."""
        self._leftovers[_kind(name)] += 1

    def lines(self) -> list[str]:
        """Return what to tell the user, in lines; none if nothing was left out."""
        lines = []
        if count := self._leftovers.total():
            most = ", ".join(name for name, _ in self._leftovers.most_common(3))
            what = "1 thumbnail or system file" if count == 1 else f"{count:,} thumbnails and system files"
            lines.append(f"{what} skipped ({most}); --all takes {'it' if count == 1 else 'them'}")
        if self.excluded:
            lines.append(f"{self.excluded:,} excluded by --exclude")
        for pattern in self.exclusion.unmatched():
            why = ": it is compared with paths below the given folder" if "/" in pattern.strip("/") else ""
            lines.append(f"--exclude {shlex.quote(pattern)} matched nothing{why}")
        return lines


def _kind(name: str) -> str:
    """Return a pattern for a name of which there may be many."""
    return next((pattern for pattern in _FILE_PATTERNS if fnmatch.fnmatchcase(name.lower(), pattern)), name)


class Exclusion:
    """Patterns for files and folders to leave out.

    A pattern without a slash is compared with each name on the way to a file, one with a slash with the path below the
    folder that was given: `*` is any part of one name, `**` any number of folders, and what is in a folder that matches
    is left out as well.

    Args:
        patterns: the patterns.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        tidied = {each: each.replace(os.sep, "/").strip("/").removeprefix("./") for each in patterns}
        self._names = {each: pattern for each, pattern in tidied.items() if pattern and "/" not in pattern}
        self._paths = {each: pattern.split("/") for each, pattern in tidied.items() if "/" in pattern}
        self._unmatched = dict.fromkeys(tidied)

    def __bool__(self) -> bool:
        return bool(self._names or self._paths)

    def unmatched(self) -> list[str]:
        """Return the patterns that have left out nothing so far, as they were given."""
        return list(self._unmatched)

    def __contains__(self, path: object) -> bool:
        """Whether a path relative to the given folder is left out, itself or with a folder on the way."""
        assert isinstance(path, str)
        parts = [part for part in path.replace(os.sep, "/").split("/") if part not in ("", os.curdir)]
        ends = range(1, len(parts) + 1)
        matching = [
            *(each for each, pattern in self._names.items() if any(_match(name, pattern) for name in parts)),
            *(each for each, pattern in self._paths.items() if any(_matches(parts[:end], pattern) for end in ends)),
        ]
        for each in matching:
            self._unmatched.pop(each, None)
        return bool(matching)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and _match(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _match(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(os.path.normcase(name), os.path.normcase(pattern))

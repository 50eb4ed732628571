"""Keeps the files of an output that is started over, until its replacement is complete."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dsvl_cli.engine.storage.files import prefix_of, sync_folder, system


class Aside:
    """A hidden folder beside an output with files that were set aside. The caller holds the output's lock.

    Args:
        target: the output.
        files: what belongs to it, in the folder of the output; the first is the one that counts.
    """

    def __init__(self, target: Path, files: Sequence[Path]) -> None:
        self._folder = target.parent
        self._prefix = prefix_of(target)
        self._files = files

    def put(self) -> None:
        """Set the files aside; do nothing if there are none."""
        if not any(map(os.path.lexists, self._files)):
            return
        place = self._folder / f"{self._prefix}{secrets.token_hex(8)}.dsvl-old"
        place.mkdir(mode=0o700)
        for path in self._files:
            if os.path.lexists(path):
                system.replace(path, place / path.name)
        sync_folder(self._folder)

    def exists(self) -> bool:
        """Whether something is set aside."""
        return bool(self._find())

    def restore(self) -> None:
        """Put back what was set aside last; do nothing if there is nothing."""
        for place in self._find()[-1:]:
            for path in reversed(self._files):
                if os.path.lexists(place / path.name):
                    system.replace(place / path.name, path)
            place.rmdir()
            sync_folder(self._folder)

    def drop(self) -> None:
        """Remove everything that was set aside."""
        for place in self._find():
            with suppress(OSError):
                for path in self._files:
                    (place / path.name).unlink(missing_ok=True)
                place.rmdir()

    def _find(self) -> list[Path]:
        """Return the folders, oldest first."""
        pattern = re.compile(re.escape(self._prefix) + r"[0-9a-f]{16}\.dsvl-old")
        with os.scandir(self._folder) as entries:
            found = [
                (entry.stat().st_mtime_ns, entry.name)
                for entry in entries
                if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
        return [self._folder / name for _, name in sorted(found)]

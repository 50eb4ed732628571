"""Text files beside the pictures, or in a folder that mirrors their tree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.disk import explained
from dsvl_cli.batch.output.formats import Existing
from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.batch.row import Row
from dsvl_cli.engine.pictures.images import PICTURE_EXTENSIONS
from dsvl_cli.engine.storage.files import find_leftovers, new_file, remove_leftovers

_LONGEST_NAME = 250  # bytes; most file systems take 255


class Sidecars:
    """Writes `photo.txt` for `photo.jpg`.

    A picture within `folder` gets its text beside it. For others `folder` mirrors the tree of the searched folder;
    files named directly keep their relative path. If two pictures would share a text file, the second's is named
    `photo.png.txt`.

    A row is in the journal, with the path of its file, before the file is written. So only the last row can lack its
    file, which is then written when the journal is opened again.

    Args:
        folder: the folder of the texts.
        existing: what to do with existing texts that are not from this batch.
    """

    def __init__(self, folder: Path, existing: Existing) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.existing = existing
        self._owners: dict[str, str] = {}  # relative path of the text -> id
        self._places: dict[str, str] = {}  # id -> relative path of the text
        self._leftovers: dict[Path, list[Path]] = {}  # by folder: temporary files of killed runs, searched once

    def load(self, fields: Mapping[str, Any]) -> None:
        """Register the text file of a row in the journal."""
        if isinstance(place := fields.get("sidecar"), str):
            self._claim(place, fields["id"])

    def begin(self, journal: Journal, journal_time: int) -> None:
        """Write the file of the journal's last row if missing; `journal_time` is the journal's modification time."""
        fields = journal.last()
        if fields is None or fields["status"] == "error" or not isinstance(fields.get("sidecar"), str):
            return
        row = journal.read(fields["id"])
        path = self.folder / fields["sidecar"]
        self._tidy(path)
        try:
            is_there = row.text in path.read_text("utf-8", "surrogateescape") or (
                self.existing in ("skip", "overwrite") and path.stat().st_mtime_ns >= journal_time
            )
        except OSError:
            is_there = False
        if not is_there:
            self.write(row, None)

    def takes(self, item: Item) -> bool:
        """Choose the text file of an item; return False if it exists and is to be kept."""
        if item.id in self._places:
            return True
        place = self._find_place(item)
        self._claim(place, item.id)
        return self.existing != "skip" or not (self.folder / place).exists()

    def more(self, row: Row) -> dict[str, str]:
        """Return the path of the row's file, for the journal."""
        return {"sidecar": self._places[row.id]} if row.id in self._places else {}

    def write(self, row: Row, before: Row | None) -> None:
        """Write a row's file; `before` is the row that it replaces, if any.

        Raises:
            DsvlError: the file cannot be written.
        """
        if row.error is not None or row.id not in self._places:
            return
        path = self.folder / self._places[row.id]
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._tidy(path)
            text = self._join(path, row.text, before.text if before else "")
            with new_file(path) as file:
                file.write(text.encode("utf-8", "surrogateescape"))

    def finish(self, journal: Journal, is_changed: bool) -> None:
        """Do nothing: texts are written immediately."""

    def _tidy(self, path: Path) -> None:
        """Remove temporary files that a killed run left for a file."""
        if path.parent not in self._leftovers:
            self._leftovers[path.parent] = find_leftovers(path.parent)
        remove_leftovers(self._leftovers[path.parent], path)

    def _join(self, path: Path, text: str, before: str) -> str:
        if self.existing in ("skip", "overwrite"):
            return text + "\n"
        try:
            old = path.read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            old = ""
        if before and before in old:
            return old.replace(before, text, 1)
        old = old.removesuffix("\n")
        parts = [old, text] if self.existing == "append" else [text, old]
        return "\n".join(filter(None, parts)) + "\n"

    def _claim(self, place: str, id: str) -> None:  # noqa: A002
        self._owners[place] = id
        self._places[id] = place

    def _find_place(self, item: Item) -> str:
        parts = self._mirror(item)
        stem, extension = os.path.splitext(parts[-1])
        if extension.lower() not in PICTURE_EXTENSIONS and not item.root:
            stem = parts[-1]
        digest = hashlib.sha256(item.id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        for name in (stem, parts[-1], f"{stem}-{digest}"):
            place = os.path.join(*parts[:-1], _shorten(name, digest) + ".txt")
            if place not in self._owners:
                break
        return place

    def _mirror(self, item: Item) -> list[str]:
        """Return the parts of the text's path within the folder; none of them leads out of it."""
        folder, name = os.path.split(item.path)
        inside = os.path.relpath(_real(folder), self.folder) if item.id == item.path else os.pardir
        if inside != os.pardir and not inside.startswith(os.pardir + os.sep):
            path = os.path.join(inside, name)
        elif item.root:
            path = os.path.relpath(item.path, item.root)
        elif os.path.isabs(item.path):
            path = name
        else:
            path = item.path.replace("::", "/")
        parts = path.replace("\0", "").replace(os.sep, "/").split("/")
        return [part for part in parts if part not in ("", os.curdir, os.pardir)] or ["picture"]


@lru_cache(maxsize=1024)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _shorten(name: str, digest: str) -> str:
    """Truncate a name that would be too long with `.txt` appended."""
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    return os.fsdecode(os.fsencode(name)[: _LONGEST_NAME - 13]) + "-" + digest

"""Text files beside the pictures, or in a folder that mirrors their tree."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Container, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.disk import explained
from dsvl_cli.batch.output.existing_text import ExistingText
from dsvl_cli.batch.output.formats import Existing
from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.batch.row import Row
from dsvl_cli.engine.encodings import UTF8
from dsvl_cli.engine.pictures.images import PICTURE_EXTENSIONS
from dsvl_cli.engine.pictures.signatures import is_picture_start
from dsvl_cli.engine.storage.files import find_leftovers, new_file, open_regular, remove_leftovers

_LONGEST_NAME = 254  # bytes; most file systems take 255


class Sidecars:
    """Writes `photo.txt` for `photo.jpg`.

    A picture within `folder` gets its text beside it. For others `folder` mirrors the tree of the searched folder;
    files named directly keep their relative path. If two pictures would share a text file, the second's is named
    `photo.png.txt`.

    A row is in the journal, with the path of its file, before the file is written. So only the last row can lack its
    file, which is then written when the journal is opened again.

    The journal may come from a stranger, with the pictures. So a path in it counts only if it is one that the row's own
    picture could have got; it is never left to lead out of the folder, and nor are links within it.

    Args:
        folder: the folder of the texts.
        existing: what to do with existing texts that are not from this batch.
        reserved: files that no text may replace, such as those that the run reads.
        extension: of the texts.
        dress: puts something around the answers.
    """

    def __init__(
        self,
        folder: Path,
        existing: Existing,
        reserved: Container[Path] = (),
        extension: str = ".txt",
        dress: Callable[[str], str] = str,
    ) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.existing = existing
        self._reserved = reserved
        self._extension = extension
        self._dress = dress
        self._owners: dict[str, str] = {}  # relative path of the text -> id
        self._places: dict[str, str] = {}  # id -> relative path of the text
        self._stored: dict[str, str] = {}  # id -> the same as the journal has it
        self._leftovers: dict[Path, list[Path]] = {}  # by folder: temporary files of killed runs, searched once

    def load(self, fields: Mapping[str, Any]) -> None:
        """Register the text file of a row in the journal."""
        place = fields.get("sidecar")
        if isinstance(place, str) and _is_plain(place, self._extension):
            self._owners.setdefault(place, fields["id"])
            self._stored[fields["id"]] = place

    def begin(self, journal: Journal, journal_time: int) -> None:
        """Write the file of the journal's last row if missing; `journal_time` is the journal's modification time."""
        fields = journal.last()
        if fields is None or fields["status"] == "error":
            return
        row = journal.read(fields["id"])
        place = self._stored.get(row.id)
        if place is None or not self._is_named_after(place, row) or not self._is_free(place, row.id):
            return
        path = self.folder / place
        self._tidy(path)
        if not self._has_text(path, self._dress(row.text), journal_time):
            self._claim(place, row.id)
            self.write(row, None)

    def _has_text(self, path: Path, text: str, journal_time: int) -> bool:
        if self.existing == "skip":
            return os.path.lexists(path)
        if (old := self._read(path)) is not None and ExistingText(old).has(text):
            return True
        try:
            return self.existing == "overwrite" and path.lstat().st_mtime_ns >= journal_time
        except OSError:
            return False

    def takes(self, item: Item, id: str) -> bool:  # noqa: A002
        """Choose the text file of an item; return False if it exists and is to be kept."""
        if id in self._places:
            return True
        choices = self._choices(item, id)
        stored = self._stored.get(id)
        if stored in choices and self._is_free(stored, id):
            self._claim(stored, id)
            return True
        place = next((place for place in choices if self._is_free(place, id)), choices[-1])
        self._claim(place, id)
        return self.existing != "skip" or not os.path.lexists(self.folder / place)

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
            if not self._is_inside(self._places[row.id]):
                raise OSError(errno.ELOOP, "a folder on the way became a link")
            self._tidy(path)
            data = self._join(path, self._dress(row.text), self._dress(before.text) if before else "")
            with new_file(path) as file:
                file.write(data)

    def finish(self, journal: Journal, is_changed: bool) -> None:
        """Do nothing: texts are written immediately."""

    def _tidy(self, path: Path) -> None:
        """Remove temporary files that a killed run left for a file."""
        if path.parent not in self._leftovers:
            self._leftovers[path.parent] = find_leftovers(path.parent)
        remove_leftovers(self._leftovers[path.parent], path)

    def _join(self, path: Path, text: str, before: str) -> bytes:
        if self.existing in ("skip", "overwrite"):
            return UTF8.encode(text + "\n")
        old = ExistingText(self._read(path) or b"")
        if before and old.has(before):
            return old.replaced(before, text)
        return old.appended(text) if self.existing == "append" else old.prepended(text)

    def _claim(self, place: str, id: str) -> None:  # noqa: A002
        self._owners[place] = id
        self._places[id] = place

    def _read(self, path: Path) -> bytes | None:
        """Return an existing text, or None if there is none; a link is not followed, and is replaced later."""
        try:
            with open_regular(path) as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                return None
            raise

    def _choices(self, item: Item, id: str) -> list[str]:  # noqa: A002
        """Return the places for the text of an item, the best first."""
        parts = self._mirror(item)
        folder = parts[:-1]
        if not self._is_inside(os.path.join(*folder, "x")):
            folder = []  # a link leads elsewhere
        return [os.path.join(*folder, name) for name in self._names(parts[-1], id, has_extension=bool(item.root))]

    def _is_named_after(self, place: str, row: Row) -> bool:
        """Whether a place could be that of a row's text, as far as this can be seen without its item."""
        folder, name = os.path.split(place)
        known = {
            name for flag in (False, True) for name in self._names(_parts(row.path)[-1], row.id, has_extension=flag)
        }
        if name not in known:
            return False
        folders = [row.path, row.path.replace("::", "/"), os.path.join(_real(os.path.dirname(row.path)), "x")]
        ends = (f"/{'/'.join(_parts(path)[:-1])}" for path in folders)
        return not folder or any(end.endswith(f"/{'/'.join(_parts(folder))}") for end in ends)

    def _is_free(self, place: str, id: str) -> bool:  # noqa: A002
        """Whether the text of an item may be at a place."""
        path = self.folder / place
        if self._owners.get(place, id) != id or not self._is_inside(place) or path in self._reserved:
            return False
        try:
            with open_regular(path) as file:
                return not is_picture_start(file.read(64))
        except OSError:
            return True

    def _is_inside(self, place: str) -> bool:
        """Whether no link leads from the folder to elsewhere on the way to a place."""
        real = os.path.realpath(self.folder / os.path.dirname(place))
        return os.path.join(real, "").startswith(os.path.join(self.folder, ""))

    def _names(self, name: str, id: str, *, has_extension: bool) -> list[str]:  # noqa: A002
        """Return the names that the text of a picture may have, the best first."""
        stem, extension = os.path.splitext(name)
        if extension.lower() not in PICTURE_EXTENSIONS and not has_extension:
            stem = name
        digest = hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return [_shorten(each, digest, self._extension) for each in (stem, name, f"{stem}-{digest}")]

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
        return _parts(path)


def _parts(path: str, default: str = "picture") -> list[str]:
    """Split a path without what leads upwards."""
    parts = path.replace("\0", "").replace(os.sep, "/").split("/")
    return [part for part in parts if part not in ("", os.curdir, os.pardir)] or [default]


def _is_plain(place: str, extension: str) -> bool:
    """Whether a path from a journal is a relative one to a text, without detours."""
    return (
        place.endswith(extension)
        and not os.path.isabs(place)
        and not os.path.splitdrive(place)[0]
        and "\0" not in place
        and os.path.normpath(place) == place
        and place.split(os.sep)[0] != os.pardir
    )


@lru_cache(maxsize=1024)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _shorten(name: str, digest: str, extension: str) -> str:
    """Append the extension to a name, truncated where that would be too long."""
    longest = _LONGEST_NAME - len(extension)
    if len(os.fsencode(name)) <= longest:
        return name + extension
    return os.fsdecode(os.fsencode(name)[: longest - 13]) + "-" + digest + extension

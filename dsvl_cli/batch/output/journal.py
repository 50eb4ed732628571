"""The rows on the disk: a JSONL file that only grows, and can be gone on with after a kill at any instant.

A row is one line, written at once and then brought to the disk, at the latest a second later. What a kill leaves of a
line is cut away when the file is opened again. A row that is done again is appended, and the last one counts; the file
is written anew without the others when it is closed or opened.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dsvl_cli.batch.output.disk import explained
from dsvl_cli.batch.row import Row, Status, encode
from dsvl_cli.batch.sources.scan import name_key
from dsvl_cli.engine.storage.files import new_file, sync_folder, system, write_all
from dsvl_cli.errors import DsvlError

SYNC_SECONDS = 1.0


class Journal:
    """The rows of one file; open it in a `with` statement. One process at a time: see `Output`.

    Memory: about 300 bytes a row, for its id and its place.

    Args:
        path: of the file; it is made if there is none.
        on_load: is told the fields of each row that is already there, oldest first.
        sync_seconds: a row is brought to the disk at the latest so long after the one before it.
        clock: seconds that never go back.

    Raises:
        DsvlError: on entering, when the file is not a journal; from every method, when it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        on_load: Callable[[Mapping[str, Any]], None] = lambda _: None,
        sync_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._on_load = on_load
        self._sync_seconds = SYNC_SECONDS if sync_seconds is None else sync_seconds
        self._clock = clock
        self._places: dict[str, int] = {}  # id -> where its line begins
        self._open: dict[str, Status] = {}  # of those that are not simply answered
        self._lines = 0
        self._size = 0
        self._handle = -1
        self._synced_at = 0.0
        self._is_synced = True

    def __enter__(self) -> Journal:
        with explained(self.path):
            is_new = not self.path.exists()
            self._open_file()
            try:
                if is_new:
                    sync_folder(self.path.parent)
                self._load()
                self._compact()
            except BaseException:
                self._close_file()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle >= 0:
            with suppress(OSError, DsvlError):
                self.sync()
            self._close_file()

    def peek(self) -> None:
        """Learn which rows there are and change nothing, for one who only asks; instead of entering."""
        if self.path.exists():
            self._load(mend=False)

    def __len__(self) -> int:
        return len(self._places)

    def status(self, id: str) -> Status | None:  # noqa: A002
        """What the row of an item counts as; None where there is none yet."""
        return self._open.get(id, "answered") if id in self._places else None

    def count(self, status: Status) -> int:
        """How many rows count as that."""
        if status == "answered":
            return len(self._places) - len(self._open)
        return sum(found == status for found in self._open.values())

    def append(self, row: Row, **more: Any) -> None:
        """Write a row, and more fields behind its own."""
        line = encode({**row.to_fields(), **more}) + b"\n"
        with explained(self.path):
            try:
                write_all(self._handle, line)
            except OSError:
                with suppress(OSError):  # where that fails, too, it is cut when the file is opened again
                    os.ftruncate(self._handle, self._size)
                raise
            self._note(row.id, row.status)
            self._size += len(line)
            self._is_synced = False
            if self._clock() - self._synced_at >= self._sync_seconds:
                self.sync()

    def sync(self) -> None:
        """Bring all rows to the disk."""
        if not self._is_synced:
            with explained(self.path):
                system.sync(self._handle)
            self._is_synced = True
            self._synced_at = self._clock()

    def tidy(self) -> None:
        """Bring all rows to the disk, and drop those that were done again."""
        self.sync()
        with explained(self.path):
            self._compact()

    def rows(self) -> Iterator[Row]:
        """Read the rows in order of name."""
        for line in self._read_lines(sorted(self._places.items(), key=lambda entry: name_key(entry[0]))):
            yield Row.from_json(line)

    def last(self) -> Mapping[str, Any] | None:
        """Read the fields of the row that was written last; None where there is none."""
        entry = max(self._places.items(), key=lambda entry: entry[1], default=None)
        if entry is None:
            return None
        fields: Mapping[str, Any] = json.loads(next(self._read_lines([entry])))
        return fields

    def read(self, id: str) -> Row:  # noqa: A002
        """Read the row of an item that has one."""
        return Row.from_json(next(self._read_lines([(id, self._places[id])])))

    def _read_lines(self, entries: list[tuple[str, int]]) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for _, place in entries:
                file.seek(place)
                yield file.readline()

    def _note(self, id: str, status: Status) -> None:  # noqa: A002
        self._places[id] = self._size
        self._lines += 1
        self._open.pop(id, None)
        if status != "answered":
            self._open[id] = status

    def _load(self, *, mend: bool = True) -> None:
        """Learn which rows there are, and cut away what a kill has left of a line if it is to be mended."""
        self._places.clear()
        self._open.clear()
        self._lines = self._size = 0
        broken = 0  # the number of the first line that is none
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                fields = _parse(line)
                if fields is None:
                    broken = broken or number
                    continue
                if broken:
                    raise DsvlError(
                        f"{self.path}: line {broken} is no row of a batch",
                        "mend that line or take it away, or begin anew with --overwrite",
                    )
                self._note(fields["id"], fields["status"])
                self._on_load(fields)
                self._size += len(line)
        if broken and mend:
            os.ftruncate(self._handle, self._size)
            system.sync(self._handle)

    def _compact(self) -> None:
        """Write the file anew without the rows that were done again."""
        if self._lines == len(self._places):
            return
        entries = sorted(self._places.items(), key=lambda entry: entry[1])
        with new_file(self.path) as file:
            places, size = {}, 0
            for (id, _), line in zip(entries, self._read_lines(entries), strict=True):  # noqa: A001
                file.write(line)
                places[id] = size
                size += len(line)
        self._close_file()
        self._open_file()
        self._places, self._size, self._lines = places, size, len(places)

    def _open_file(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._handle = os.open(self.path, flags, 0o666)

    def _close_file(self) -> None:
        os.close(self._handle)
        self._handle = -1


def _parse(line: bytes) -> Mapping[str, Any] | None:
    """Read a line's fields; None where it is not a whole row."""
    if not line.endswith(b"\n"):
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    is_row = isinstance(fields, dict) and isinstance(fields.get("id"), str)
    return fields if is_row and fields.get("status") in ("answered", "suspect", "error") else None

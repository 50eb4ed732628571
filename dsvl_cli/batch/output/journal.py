"""The journal: an append-only JSONL file of rows, from which a run can resume after being killed at any point.

A row is one line, written immediately and synced to disk within a second. A killed run leaves at most one partial line,
the last one and without a line feed: only that is cut off when the file is opened again. Any other line that is not a
row is an error, and the file stays as it is. A row that is redone is appended, and the last one counts; when the
journal is opened or tidied, the file is rewritten without the superseded rows.
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
from dsvl_cli.engine.storage.files import create, new_file, open_regular, sync_folder, system, write_all
from dsvl_cli.errors import DsvlError

SYNC_SECONDS = 1.0
_BEGINNING = b'{"id": '  # of every line


class Journal:
    """The rows of one file; a context manager. For one process at a time, see `KeptOutput`.

    Memory: about 300 bytes per row, for its id and file offset.

    Args:
        path: the file; created if missing.
        on_load: called with the fields of each existing row, oldest first.
        sync_seconds: maximum time between two rows before the file is synced to disk.
        clock: returns monotonic seconds.

    Raises:
        DsvlError: on entering, if the file is not a journal; from any method, if it cannot be written.
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
        self._places: dict[str, int] = {}  # id -> offset of its line
        self._open: dict[str, Status] = {}  # those other than "answered"
        self._lines = 0
        self._size = 0
        self._handle = -1
        self._synced_at = 0.0
        self._is_synced = True

    def __enter__(self) -> Journal:
        with explained(self.path):
            is_new = not os.path.lexists(self.path)
            if is_new:
                os.close(create(self.path))
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
        """Load the existing rows read-only, for dry runs; use instead of entering."""
        if os.path.lexists(self.path):
            with explained(self.path, "read"):
                self._load(mend=False)

    def __len__(self) -> int:
        return len(self._places)

    def ids(self) -> Iterator[str]:
        """Yield the ids of the rows."""
        yield from self._places

    def status(self, id: str) -> Status | None:  # noqa: A002
        """Return the status of an item's row, or None if it has none yet."""
        return self._open.get(id, "answered") if id in self._places else None

    def count(self, status: Status) -> int:
        """Return the number of rows with a status."""
        if status == "answered":
            return len(self._places) - len(self._open)
        return sum(found == status for found in self._open.values())

    def append(self, row: Row, **more: Any) -> None:
        """Append a row, with additional fields after its own."""
        line = encode({**row.to_fields(), **more}) + b"\n"
        with explained(self.path):
            try:
                write_all(self._handle, line)
            except OSError:
                with suppress(OSError):  # if this fails too, the next run cuts it off
                    os.ftruncate(self._handle, self._size)
                raise
            self._note(row.id, row.status)
            self._size += len(line)
            self._is_synced = False
            if self._clock() - self._synced_at >= self._sync_seconds:
                self.sync()

    def sync(self) -> None:
        """Sync all rows to disk."""
        if not self._is_synced:
            with explained(self.path):
                system.sync(self._handle)
            self._is_synced = True
            self._synced_at = self._clock()

    def tidy(self) -> None:
        """Sync all rows to disk and drop superseded ones."""
        self.sync()
        with explained(self.path):
            self._compact()

    def rows(self) -> Iterator[Row]:
        """Yield the rows sorted by name."""
        yield from map(Row.from_fields, self.fields())

    def fields(self) -> Iterator[Mapping[str, Any]]:
        """Yield the fields of the rows sorted by name, with what an output has added to them."""
        for line in self._read_lines(sorted(self._places.items(), key=lambda entry: name_key(entry[0]))):
            yield json.loads(line)

    def last(self) -> Mapping[str, Any] | None:
        """Return the fields of the last written row, or None if there are no rows."""
        entry = max(self._places.items(), key=lambda entry: entry[1], default=None)
        if entry is None:
            return None
        fields: Mapping[str, Any] = json.loads(next(self._read_lines([entry])))
        return fields

    def read(self, id: str) -> Row:  # noqa: A002
        """Return the row of an item; it must exist."""
        return Row.from_json(next(self._read_lines([(id, self._places[id])])))

    def _read_lines(self, entries: list[tuple[str, int]]) -> Iterator[bytes]:
        with open_regular(self.path) as file:
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
        """Load the existing rows and, if `mend`, cut off the partial line that a killed run left.

        Raises:
            DsvlError: the file has another line that is not a row.
        """
        self._places.clear()
        self._open.clear()
        self._lines = self._size = 0
        is_partial = is_unended = False
        with open_regular(self.path) as file:
            for number, line in enumerate(file, 1):
                fields = _parse(line)
                if fields is None and _is_partial(line):
                    is_partial = True
                    break
                if fields is None:
                    raise DsvlError(
                        f"{self.path}: line {number} is not a row of a batch; the file was left as it is",
                        "undo what changed it, or start over with --overwrite",
                    )
                is_unended = not line.endswith(b"\n")  # an editor removed the last line feed
                self._note(fields["id"], fields["status"])
                self._on_load(fields)
                self._size += len(line)
        if mend and is_unended:
            write_all(self._handle, b"\n")
            self._size += 1
        elif mend and is_partial:
            os.ftruncate(self._handle, self._size)
        if mend and (is_unended or is_partial):
            system.sync(self._handle)

    def _compact(self) -> None:
        """Rewrite the file without superseded rows."""
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
        flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        self._handle = os.open(self.path, flags)

    def _close_file(self) -> None:
        os.close(self._handle)
        self._handle = -1


def _parse(line: bytes) -> Mapping[str, Any] | None:
    """Return the fields of a line, or None if it is not a row."""
    try:
        fields: Mapping[str, Any] = json.loads(line)
        row = Row.from_fields(fields)
    except (ValueError, RecursionError):
        return None
    return fields if fields.get("status") == row.status else None


def _is_partial(line: bytes) -> bool:
    """Whether a line can be what a kill, or a power failure with its zeros, left of a row; it is the last one then."""
    begun = line.rstrip(b"\0")
    if line.endswith(b"\n") or not (begun.startswith(_BEGINNING) or _BEGINNING.startswith(begun)):
        return False
    try:
        json.loads(begun)
    except (ValueError, RecursionError):
        return True
    return False  # whole, and still no row

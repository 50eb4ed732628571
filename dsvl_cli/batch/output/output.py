"""Destinations of rows: a file from which later runs resume, or a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from filelock import FileLock, Timeout

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.disk import explained
from dsvl_cli.batch.output.formats import Format
from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.output.tables import write_csv, write_openai, write_parquet
from dsvl_cli.batch.quality import RETRY_SAMPLING
from dsvl_cli.batch.row import Row
from dsvl_cli.engine.storage.files import find_leftovers, remove_leftovers
from dsvl_cli.errors import DsvlError


class Sink(Protocol):
    """Derives an output from the rows of a journal."""

    def load(self, fields: Mapping[str, Any]) -> None:
        """Register an existing row."""

    def begin(self, journal: Journal, journal_time: int) -> None:
        """Complete what an interrupted run left undone."""

    def takes(self, item: Item) -> bool:
        """Whether to process an item without a row; called from another thread than the other methods."""
        ...

    def more(self, row: Row) -> Mapping[str, Any]:
        """Return additional fields for the row in the journal."""
        ...

    def write(self, row: Row, before: Row | None) -> None:
        """Process a row that was just added to the journal; `before` is the one it replaces."""

    def finish(self, journal: Journal, is_changed: bool) -> None:
        """Write what can only be written at the end."""


class JournalOnly:
    """For outputs that consist of the journal alone."""

    def load(self, fields: Mapping[str, Any]) -> None:
        """Do nothing."""

    def begin(self, journal: Journal, journal_time: int) -> None:
        """Do nothing."""

    def takes(self, item: Item) -> bool:
        """Return True for every item."""
        return True

    def more(self, row: Row) -> Mapping[str, Any]:
        """Return no additional fields."""
        return {}

    def write(self, row: Row, before: Row | None) -> None:
        """Do nothing: the journal has the row."""

    def finish(self, journal: Journal, is_changed: bool) -> None:
        """Do nothing: the journal is complete."""


class Table(JournalOnly):
    """A file generated from the journal at the end of a run."""

    def __init__(
        self, path: Path, write: Callable[[Path, Iterable[Row], Sequence[str]], None], questions: Sequence[str]
    ) -> None:
        self.path = path
        self._write = write
        self._questions = questions

    def finish(self, journal: Journal, is_changed: bool) -> None:
        """Write the table unless it is up to date."""
        if is_changed or not self.path.exists() or self.path.stat().st_mtime_ns < journal.path.stat().st_mtime_ns:
            with explained(self.path):
                self._write(self.path, journal.rows(), self._questions)


class KeptOutput:
    """An output that a later run of the same command resumes; a context manager.

    Args:
        path: OUT as the user named it.
        format: the format of OUT.
        sink: derives OUT from the journal.
        settings: the settings for new rows.
        overwrite: start over, discarding existing rows.
        retry_errors, retry_suspect: redo rows of that status.

    Attributes:
        settings: the given settings with the format, and with the earlier run's seed if it was chosen at random.

    Raises:
        DsvlError: on entering, if another run is writing the output, or it was made with different settings.
    """

    def __init__(
        self,
        path: Path,
        format: Format,  # noqa: A002
        sink: Sink,
        settings: Settings,
        *,
        overwrite: bool = False,
        retry_errors: bool = False,
        retry_suspect: bool = False,
    ) -> None:
        self.shown = path
        self.path = Path(os.path.realpath(path))
        self.settings = replace(settings, format=format)
        self._format = format
        self._sink = sink
        self._overwrite = overwrite
        self._again = {status for status, wanted in (("error", retry_errors), ("suspect", retry_suspect)) if wanted}
        self._is_changed = False
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.dsvl-lock"), timeout=0)
        self.journal = Journal(journal_path(self.path, format), sink.load)

    def __enter__(self) -> KeptOutput:
        with explained(self.shown):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout as exc:
                raise DsvlError(
                    f"another dsvl is writing {self.shown}", "wait until it has finished, or write elsewhere with -o"
                ) from exc
        try:
            own = (self.path, self.journal.path, settings_path_of(self.path))
            remove_leftovers(find_leftovers(self.path.parent), *own)
            if self._overwrite:
                self._remove()
            if not self._check():
                self.settings.write(settings_path_of(self.path))
            changed_at = _changed_at(self.journal.path)
            self.journal.__enter__()
            self._sink.begin(self.journal, changed_at)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, trace)
        self._lock.release()

    def peek(self) -> None:
        """Load what exists without changing anything, for dry runs; use instead of entering.

        Raises:
            DsvlError: entering would fail because of what exists.
        """
        if self._overwrite:
            return
        self._check()
        self.journal.peek()

    def select(self, item: Item) -> Item | None:
        """Return the item as it should be processed, or None if its row is complete. Thread-safe."""
        status = self.journal.status(item.id)
        if status is None:
            return item if self._sink.takes(item) else None
        if status not in self._again:
            return None
        return replace(item, sampling={**item.sampling, **RETRY_SAMPLING}) if status == "suspect" else item

    def write(self, row: Row) -> None:
        """Store a row.

        Raises:
            DsvlError: it cannot be written.
        """
        status = self.journal.status(row.id)
        if status == "suspect" and row.error is not None:
            return  # a suspect answer is better than none
        before = self.journal.read(row.id) if status is not None else None
        self.journal.append(row, **self._sink.more(row))
        self._is_changed = True
        if not isinstance(self._sink, JournalOnly):
            self.journal.sync()  # otherwise a power failure could leave a text without its row
        self._sink.write(row, before)

    def finish(self) -> None:
        """Sync everything to disk and write tables.

        Raises:
            DsvlError: it cannot be written.
        """
        self.journal.tidy()
        self._sink.finish(self.journal, self._is_changed)

    def _check(self) -> bool:
        """Return whether there are rows to resume; raise DsvlError if they do not match these settings."""
        stored = Settings.read(settings_path_of(self.path))
        if not any(map(_has_content, (self.path, _journal_beside(self.path)))):
            return False
        if stored is not None:
            self.settings = self.settings.with_seed_of(stored)
            if found := self.settings.differences(stored):
                raise DsvlError(
                    f"{self.shown} was made with different settings; now: {', '.join(found)}",
                    "write elsewhere with -o, or start over with --overwrite",
                )
        if stored is None or not _has_content(self.journal.path):
            raise DsvlError(
                f"{self.shown} already exists and is not from `dsvl batch`",
                "write elsewhere with -o, or replace it with --overwrite",
            )
        return True

    def _remove(self) -> None:
        with explained(self.shown):
            if self._format != "txt":
                self.path.unlink(missing_ok=True)
            _journal_beside(self.path).unlink(missing_ok=True)
            settings_path_of(self.path).unlink(missing_ok=True)


class StreamOutput:
    """Writes rows to a stream as they come; nothing is stored, so every item is processed.

    Args:
        stream: a binary stream.
        name: the name of the stream in messages.
        to_line: encodes a row, including the line ending.
    """

    def __init__(self, stream: BinaryIO, name: str, to_line: Callable[[Row], bytes]) -> None:
        self._stream = stream
        self._name = name
        self._to_line = to_line

    def select(self, item: Item) -> Item | None:
        """Return every item."""
        return item

    def write(self, row: Row) -> None:
        """Write a row immediately.

        Raises:
            BrokenPipeError: the reader has closed the stream.
            DsvlError: it cannot be written.
        """
        with explained(self._name):
            self._stream.write(self._to_line(row))
            self._stream.flush()

    def finish(self) -> None:
        """Do nothing: rows are written immediately."""


def journal_path(path: Path, format: str | None) -> Path:  # noqa: A002
    """Return the path of an output's journal."""
    return path if format == "jsonl" else _journal_beside(path)


def settings_path_of(path: Path) -> Path:
    """Return the path of an output's settings."""
    return path.with_name(path.name + ".settings.json")


TABLE_WRITERS: Mapping[str, Callable[[Path, Iterable[Row], Sequence[str]], None]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "openai": write_openai,
}


def _journal_beside(path: Path) -> Path:
    return path.with_name(path.name + ".journal.jsonl")


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0

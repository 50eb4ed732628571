"""What is derived from the rows of a journal: nothing, or a table."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.disk import explained
from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.batch.output.tables import write_csv, write_openai, write_parquet
from dsvl_cli.batch.row import Row


class Sink(Protocol):
    """Derives an output from the rows of a journal."""

    def load(self, fields: Mapping[str, Any]) -> None:
        """Register an existing row."""

    def begin(self, journal: Journal, journal_time: int) -> None:
        """Complete what an interrupted run left undone."""

    def takes(self, item: Item, id: str) -> bool:  # noqa: A002
        """Whether to process an item, whose row gets this id; called from another thread than the other methods."""
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

    def takes(self, item: Item, id: str) -> bool:  # noqa: A002
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
    """A file generated from the journal at the end of a run.

    Args:
        path: the file.
        write: writes it.
        questions: the names of the questions.
        mark: whether it begins with a byte order mark.
    """

    def __init__(
        self,
        path: Path,
        write: Callable[[Path, Iterable[Row], Sequence[str]], None],
        questions: Sequence[str],
        *,
        mark: bool = False,
    ) -> None:
        self.path = path
        self._write = write
        self._questions = questions
        self._mark = mark

    def finish(self, journal: Journal, is_changed: bool) -> None:
        """Write the table unless it is up to date."""
        if is_changed or not self._is_current(journal):
            with explained(self.path):
                self._write(self.path, journal.rows(), self._questions)

    def _is_current(self, journal: Journal) -> bool:
        if not self.path.exists() or self.path.stat().st_mtime_ns < journal.path.stat().st_mtime_ns:
            return False
        with explained(self.path, "read"), self.path.open("rb") as file:
            return file.read(len(BOM_UTF8)).startswith(BOM_UTF8) == self._mark


TABLE_WRITERS: Mapping[str, Callable[[Path, Iterable[Row], Sequence[str]], None]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "openai": write_openai,
}

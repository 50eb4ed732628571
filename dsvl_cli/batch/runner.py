"""Runs a captioner over items, writes the rows and counts failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.row import Row
from dsvl_cli.errors import DsvlError

Ending = Literal["done", "stopped", "max-errors", "all-fail"]

FAILURES_IN_A_ROW = 100


class Rows(Protocol):
    """Receives rows; see `dsvl_cli.batch.output.output`."""

    def write(self, row: Row) -> None:
        """Store a row."""

    def finish(self) -> None:
        """Complete the output."""


class Caption(Protocol):
    """Turns items into rows; see `dsvl_cli.batch.captioner`."""

    def __call__(self, items: Iterable[Item | None]) -> Iterator[Row]:
        """Yield a row for each item."""
        ...

    def stop(self) -> None:
        """Start no more items."""


@dataclass(slots=True)
class Tally:
    """Row counts of one run.

    Attributes:
        answered, suspect, failed: the number of rows by status.
        ending: why the run ended.
    """

    answered: int = 0
    suspect: int = 0
    failed: int = 0
    ending: Ending = "done"

    @property
    def done(self) -> int:
        """The total number of rows."""
        return self.answered + self.suspect + self.failed


class Runner:
    """Runs a captioner over items and stores the rows.

    Args:
        caption: turns items into rows.
        output: stores the rows.
        max_errors: stop when more items than this have failed; None for no limit.
        tell: called with each row and the tally so far.
    """

    def __init__(
        self,
        caption: Caption,
        output: Rows,
        max_errors: int | None = None,
        tell: Callable[[Row, Tally], None] = lambda *_: None,
    ) -> None:
        self.tally = Tally()
        self._caption = caption
        self._output = output
        self._max_errors = max_errors
        self._tell = tell
        self._in_a_row = 0

    def stop(self, ending: Ending = "stopped") -> None:
        """Start no more items; those in flight are finished and stored."""
        if self.tally.ending == "done":
            self.tally.ending = ending
            self._caption.stop()

    def run(self, items: Iterable[Item | None]) -> Tally:
        """Process all items and store their rows.

        However the run ends, finished rows are kept, and the output is completed unless writing it fails.

        Raises:
            DsvlError: a row cannot be written, or finding items fails.
        """
        try:
            for row in self._caption(items):
                self._output.write(row)
                self._count(row)
                self._tell(row, self.tally)
        except Exception:
            with suppress(DsvlError, OSError):  # the first error is the one to report
                self._output.finish()
            raise
        self._output.finish()
        return self.tally

    def _count(self, row: Row) -> None:
        if row.status == "error":
            self.tally.failed += 1
            self._in_a_row += 1
        else:
            self._in_a_row = 0
            if row.status == "suspect":
                self.tally.suspect += 1
            else:
                self.tally.answered += 1
        if self._max_errors is not None and self.tally.failed > self._max_errors:
            self.stop("max-errors")
        elif self._in_a_row >= FAILURES_IN_A_ROW:
            self.stop("all-fail")

"""The summary and the exit status at the end of a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsvl_cli.batch.output.tables import looks_like_formula
from dsvl_cli.batch.runner import FAILURES_IN_A_ROW, Tally
from dsvl_cli.errors import DsvlError, SomeFailed
from dsvl_cli.terminal.batch import per_minute
from dsvl_cli.terminal.waiting import clock_time

if TYPE_CHECKING:
    from dsvl_cli.app.batch.options import BatchOptions
    from dsvl_cli.batch.output.output import KeptOutput
    from dsvl_cli.batch.sources.leftovers import Skipped
    from dsvl_cli.terminal.console import Console


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The outcome of a run.

    Attributes:
        kept: the output, or None if it is a stream.
        found: the number of pictures found.
        skipped: what was left out.
        notes: what is to be said about the pictures, in lines.
        tally: what was done.
        seconds: the duration of the run.
        signal_number: the signal that ended the run, or None.
    """

    kept: KeptOutput | None
    found: int
    skipped: Skipped
    notes: Sequence[str]
    tally: Tally
    seconds: float
    signal_number: int | None


def conclude(console: Console, options: BatchOptions, outcome: RunOutcome) -> None:
    """Print the summary, and raise if the run did not succeed.

    Raises:
        SomeFailed: some rows are errors.
        DsvlError: the run stopped after too many errors.
        KeyboardInterrupt, SystemExit: a signal ended the run.
    """
    kept, tally, number = outcome.kept, outcome.tally, outcome.signal_number
    for line in _summarize(options, outcome):
        console.status(line)
    if number is not None:
        console.status("run the same command again to resume" if kept else "stopped before everything was done")
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
    if tally.ending == "max-errors":
        raise DsvlError(f"stopped: more than {options.max_errors} failed", "retry them with --retry-errors")
    if tally.ending == "all-fail":
        raise DsvlError(
            f"stopped: {FAILURES_IN_A_ROW} failed in a row",
            "fix the common cause, then retry them with --retry-errors",
        )
    if failed := kept.journal.count("error") if kept else tally.failed:
        raise SomeFailed(f"{failed} rows are errors")


def _summarize(options: BatchOptions, outcome: RunOutcome) -> Iterator[str]:
    kept, tally, out, report = outcome.kept, outcome.tally, options.out, options.report
    has_folder = any(map(os.path.isdir, options.sources))
    if tally.done:
        rate = per_minute(tally.done, outcome.seconds)
        pace = f" in {clock_time(outcome.seconds)}" + (f", {rate} pictures a minute" if rate else "")
        yield f"{_count(tally.answered, tally.suspect, tally.failed)}{pace}"
    elif outcome.found == 0:
        yield "no pictures were found" + ("" if options.recursive else "; -r searches subfolders too") * has_folder
    else:
        yield f"nothing to do: all {outcome.found:,} pictures found are done"
    yield from outcome.notes
    yield from outcome.skipped.lines()
    if kept is None:
        return
    answered, suspect, failed = (kept.journal.count(status) for status in ("answered", "suspect", "error"))
    if len(kept.journal) != tally.done and len(kept.journal):
        yield f"{out} now has {_count(answered, suspect, failed)}"
    again = [flag for flag, count in (("--retry-suspect", suspect), ("--retry-errors", failed)) if count]
    if again:
        yield f"retry with {' and '.join(again)}"
    if kept.settings.format == "csv" and (count := sum(map(looks_like_formula, kept.journal.ids()))):
        what = "1 of the ids looks like a formula" if count == 1 else f"{count:,} of the ids look like formulas"
        yield f"{what} to a spreadsheet: import that column as text"
    if len(kept.journal):
        yield f"rows in {out}" + (f", report in {report}" if report is not None else "")


def _count(answered: int, suspect: int, failed: int) -> str:
    parts = [
        f"{answered:,} answered",
        f"{suspect:,} suspect" if suspect else "",
        f"{failed:,} failed" if failed else "",
    ]
    return ", ".join(filter(None, parts))

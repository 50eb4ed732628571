"""The summary, the report and the exit status of a job on a cluster."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dsvl_cli.app.batch.conclusion import count_words, raise_ending
from dsvl_cli.batch.runner import Ending
from dsvl_cli.batch.sources.scan import name_key
from dsvl_cli.errors import DsvlError, SomeFailed
from dsvl_cli.terminal.batch import per_minute
from dsvl_cli.terminal.waiting import clock_time

if TYPE_CHECKING:
    from dsvl_cli.app.batch.options import BatchOptions
    from dsvl_cli.batch.cluster.manifest import Entry, Manifest
    from dsvl_cli.batch.cluster.output import ClusterOutput
    from dsvl_cli.batch.cluster.reading import Reading
    from dsvl_cli.batch.row import Row, Status
    from dsvl_cli.batch.sources.leftovers import Skipped
    from dsvl_cli.terminal.console import Console

_REPORT_ROWS = 10_000
_REMEDY = "ask again about the pictures of these rows, with --files-from and another -o"


@dataclass(slots=True)
class ClusterOutcome:
    """The outcome of a job.

    Attributes:
        output: the output.
        found: the number of pictures found.
        skipped: what was left out.
        due: the number of pictures to do.
        before: the numbers of rows that an earlier run made.
        seconds: the duration of the job.
        ending: why it ended.
        signal_number: the signal that ended it, or None.
    """

    output: ClusterOutput
    found: int
    skipped: Skipped
    due: int
    before: Counter[Status] = field(default_factory=Counter)
    seconds: float = 0.0
    ending: Ending = "done"
    signal_number: int | None = None


def conclude_job(console: Console, options: BatchOptions, outcome: ClusterOutcome) -> None:
    """Print the summary, and raise if the job did not succeed.

    Raises:
        SomeFailed: some rows are errors, or missing.
        DsvlError: the job stopped after too many errors.
        KeyboardInterrupt, SystemExit: a signal ended it.
    """
    counts = outcome.output.count()
    saved = counts - outcome.before
    for line in _summarize(options, outcome, counts, saved):
        console.status(line)
    missing = outcome.due - saved.total()
    if outcome.signal_number is not None:
        console.status("run the same command again to resume")
    raise_ending(outcome.ending, outcome.signal_number, options.max_errors, _REMEDY)
    if missing:
        console.error(
            DsvlError(f"{missing:,} pictures have no row: their workers failed", "run the same command again")
        )
    if counts["error"] or missing:
        raise SomeFailed(f"{counts['error']} rows are errors, {missing} are missing")


def _summarize(
    options: BatchOptions, outcome: ClusterOutcome, counts: Counter[Status], saved: Counter[Status]
) -> Iterator[str]:
    out = options.out
    if outcome.due:
        rate = per_minute(saved.total(), outcome.seconds)
        pace = f" in {clock_time(outcome.seconds)}" + (f", {rate} pictures a minute" if rate else "")
        yield f"{_words(saved)}{pace}"
    elif outcome.found == 0:
        yield "no pictures were found" + ("" if options.recursive else "; -r searches subfolders too")
    else:
        yield f"nothing to do: all {outcome.found:,} pictures found are done"
    yield from outcome.skipped.lines()
    if outcome.before:
        yield f"{out} now has {_words(counts)}"
    if counts:
        yield f"rows in {out}" + (f", report in {options.report}" if options.report is not None else "")


def _words(counts: Counter[Status]) -> str:
    return count_words(counts["answered"], counts["suspect"], counts["error"])


def write_job_report(options: BatchOptions, output: ClusterOutput, manifest: Manifest, reading: Reading) -> None:
    """Write the HTML page of a job: of its first rows by name, since nobody looks at a page of millions.

    Raises:
        DsvlError: it cannot be written.
    """
    from dsvl_cli.batch.captioner import hash_pictures
    from dsvl_cli.batch.output.report import make_thumbnail, write_report
    from dsvl_cli.engine.pictures.bounded import BoundedDecoder

    assert options.report is not None
    rows = heapq.nsmallest(_REPORT_ROWS, output.read_rows(), key=lambda row: name_key(row.id))
    wanted = {row.id for row in rows}
    entries: dict[str, Entry] = {entry.id: entry for entry in manifest.entries() if entry.id in wanted}
    decoder = BoundedDecoder()

    def thumbnail_of(row: Row) -> bytes | None:
        entry = entries.get(row.id)
        if row.width is None or entry is None or entry.kind in ("url", "typed-url"):
            return None  # it could not be decoded, or would have to be fetched again
        try:
            data = reading.read(entry)
        except (DsvlError, OSError):
            return None
        # No other picture than the one that was answered about.
        return make_thumbnail(data[0], decoder.read) if data and hash_pictures(data) == row.sha256 else None

    settings = output.settings
    about = f"{options.out}, {settings.model}: {' / '.join(settings.prompts.values())}"
    if len(rows) == _REPORT_ROWS:
        about += f" (the first {_REPORT_ROWS:,} rows)"
    try:
        write_report(options.report, rows, thumbnail_of, about=about)
    finally:
        decoder.close()

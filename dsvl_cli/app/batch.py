"""`dsvl batch` at work: a job -> rows in their place, and what is said meanwhile and at the end."""

from __future__ import annotations

import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.app.batch_job import STDIO, Job
from dsvl_cli.batch.output.output import (
    FORMATS_BY_EXTENSION,
    TABLE_WRITERS,
    Format,
    JournalOnly,
    KeptOutput,
    Sink,
    StreamOutput,
    Table,
    journal_path,
    settings_path_of,
)
from dsvl_cli.batch.output.responses import to_response_line
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.output.sidecars import Sidecars
from dsvl_cli.batch.output.tables import check_parquet
from dsvl_cli.batch.row import Row
from dsvl_cli.batch.runner import FAILURES_IN_A_ROW, Runner, Tally
from dsvl_cli.batch.sources.scanner import Supply
from dsvl_cli.batch.stopping import StopSignals
from dsvl_cli.engine.checkpoint.find import find_checkpoint
from dsvl_cli.engine.progress import Choice, Listener, Silence
from dsvl_cli.errors import DsvlError, SomeFailed, UsageError
from dsvl_cli.terminal.batch import BatchProgress, per_minute
from dsvl_cli.terminal.console import Console
from dsvl_cli.terminal.progress import ConsoleListener, clock_time
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from dsvl_cli.batch.captioner import Captioner


def run_batch(console: Console, job: Job) -> None:
    """Do the job, or go on with it.

    Raises:
        SomeFailed: rows are errors; they were told.
        DsvlError: a source is not there, the output is another's, the model cannot be loaded, rows cannot be written.
        KeyboardInterrupt, SystemExit: a signal asked to end; what was in flight was finished and kept.
    """
    listener = _OnceListener(ConsoleListener(console))
    checkpoint = find_checkpoint(job.load, listener)
    questions = job.questions(has_chat=checkpoint.has_chat)
    batch_size = job.batch_size
    with ExitStack() as stack:
        output = _open_output(job, job.settings(checkpoint, questions))
        kept = stack.enter_context(output) if isinstance(output, KeptOutput) else None
        unread: list[str] = []
        supply = Supply(job.items(unread.append), output.select)
        stack.callback(supply.close)
        supply.start()
        signals, tally, seconds = None, Tally(), 0.0
        if supply.wait():
            with console.working("loading the model"):
                settings = kept.settings if kept else job.settings(checkpoint, questions)
                captioner = _make_captioner(job, settings, batch_size, listener)
            progress = BatchProgress(console, len(kept.journal) if kept else 0, str(job.values["out"]))
            runner = Runner(captioner, output, job.values["max_errors"], _Teller(progress, supply))
            with StopSignals(lambda: _stop(runner, progress)) as signals:
                try:
                    tally = runner.run(supply)
                finally:
                    progress.close()
            seconds = progress.seconds
        else:
            output.finish()
        _write_report(job, kept)
        for text in unread:
            console.warn(text)
        _conclude(console, job, kept, supply, tally, seconds, signals.number if signals else None)
        if unread:
            raise SomeFailed("folders could not be read")


def preview_batch(console: Console, job: Job) -> None:
    """Say what would be done, and change nothing.

    Raises:
        DsvlError: it would not be done.
    """
    checkpoint = find_checkpoint(replace(job.load, offline=True), ConsoleListener(console))
    questions = job.questions(has_chat=checkpoint.has_chat)
    output = _open_output(job, job.settings(checkpoint, questions))
    if isinstance(output, KeptOutput):
        output.peek()
    found = due = 0
    for item in job.items(console.warn):
        found += 1
        due += output.select(item) is not None
    rows = [
        ("found", f"{found:,}"),
        ("to do", f"{due:,}"),
        ("done, or to be left as they are", f"{found - due:,}"),
        ("model", checkpoint.name),
        *(("question" if name == "text" else name, prompt or "(none)") for name, prompt in questions.items()),
        ("output", f"{job.values['out']} ({_format_of(job)})"),
    ]
    console.write("\n".join(align(rows, console.width)) + "\n")


def check_output(console: Console, job: Job, out: str) -> None:
    """Tell which rows of an output are stale.

    Raises:
        SomeFailed: some are; each was told.
        DsvlError: there is no such output.
    """
    from dsvl_cli.batch.check import find_stale
    from dsvl_cli.batch.output.journal import Journal

    path = Path(out).resolve()
    stored = Settings.read(settings_path_of(path))
    journal = Journal(journal_path(path, stored.format if stored else None))
    if stored is None or not journal.path.exists():
        raise DsvlError(f"{out} is not from `dsvl batch`", "name the OUT of an earlier run")
    journal.peek()
    # What the command line does not say is as it was.
    load = job.load if "model" in job.given else replace(job.load, model=stored.model)
    found: list[str] = []
    try:
        checkpoint = find_checkpoint(replace(load, offline=True), Silence())
        if checkpoint.fingerprint != stored.fingerprint:
            found.append(f"the model is another: {checkpoint.name}")
    except DsvlError as error:
        console.warn(f"the model is not compared: {error.message}")
    if job.given & {"prompt", "prompt_file", "ask"} and job.questions(has_chat=True) != stored.prompts:
        found.append("the prompt is another")
    if "system" in job.given and job.values["system"] != stored.system:
        found.append("the system text is another")
    stale, rows = 0, journal.rows()
    reasons = ((row, ", ".join(found)) for row in rows) if found else find_stale(rows, stored.column)
    for row, reason in reasons:
        stale += 1
        console.write(f"{row.path}: {reason}\n")
    console.status(f"{out}: {stale:,} of {len(journal):,} rows are stale")
    if stale:
        raise SomeFailed(f"{stale} rows are stale")


class _OnceListener:
    """Says a note once, however often it comes: the model is looked for before it is loaded."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._said: set[str] = set()
        self.progress = listener.progress

    def note(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._listener.note(text)

    def choice(self, choice: Choice) -> None:
        self._listener.choice(choice)


class _Teller:
    """Hands what is known about a run to the progress."""

    def __init__(self, progress: BatchProgress, supply: Supply) -> None:
        self._progress = progress
        self._supply = supply

    def __call__(self, row: Row, tally: Tally) -> None:
        if row.error is not None:
            message = row.error.message
            self._progress.error(message if message.startswith(row.path) else f"{row.path}: {message}")
        due = self._supply.due if self._supply.is_complete else None
        self._progress.update(tally.done, due, tally.failed, tally.suspect)


def _make_captioner(job: Job, settings: Settings, batch_size: int | None, listener: Listener) -> Captioner:
    from dsvl_cli.batch.captioner import Captioner
    from dsvl_cli.batch.quality import find_suspicion
    from dsvl_cli.engine.model import load_model

    sampling = replace(job.sampling, seed=settings.sampling["seed"])
    model = load_model(job.load, listener)
    return Captioner(model, settings.prompts, settings.system, sampling, batch_size, find_suspicion)


def _stop(runner: Runner, progress: BatchProgress) -> None:
    runner.stop()
    progress.say("finishing the pictures in work; the next signal ends it at once")


def _format_of(job: Job) -> Format | None:
    """What OUT is; None where it is a stream."""
    out, form = job.values["out"], job.values["format"]
    if out is None:
        raise UsageError("where do the rows go? No OUT is given", "-o captions.jsonl, a folder, or - for stdout")
    path = Path(out)
    if out == STDIO or (path.exists() and not (path.is_dir() or stat.S_ISREG(path.stat().st_mode))):
        if form not in (None, "jsonl", "openai"):
            raise UsageError(f"{form} cannot be streamed", "give a file with -o")
        return None
    found: Format | None = form or FORMATS_BY_EXTENSION.get(path.suffix.lower())
    if found is None and (path.is_dir() or not path.suffix):
        found = "txt"
    if found is None:
        raise UsageError(
            f"{out}: what to write is not clear from {path.suffix!r}",
            "end it in .jsonl, .csv or .parquet, name a folder, or add --format",
        )
    if found != "txt" and path.is_dir():
        raise UsageError(f"{out} is a folder, and {found} is a file")
    return found


def _open_output(job: Job, settings: Settings) -> KeptOutput | StreamOutput:
    form, values = _format_of(job), job.values
    if values["existing"] is not None and form != "txt":
        raise UsageError("--existing is for text files", "name a folder with -o")
    if form is None:
        if values["report"] is not None:
            raise UsageError("a report is made of rows that are kept", "give a file with -o")
        to_line = to_response_line if values["format"] == "openai" else Row.to_line
        if values["out"] == STDIO:
            return StreamOutput(sys.stdout.buffer, "stdout", to_line)
        return StreamOutput(open(values["out"], "wb", buffering=0), values["out"], to_line)  # until the end
    path = Path(values["out"])
    sink: Sink = JournalOnly()
    if form == "txt":
        sink = Sidecars(path, values["existing"] or ("overwrite" if values["overwrite"] else "skip"))
    elif form in TABLE_WRITERS:
        if form == "parquet":
            check_parquet()
        sink = Table(path, TABLE_WRITERS[form], tuple(settings.prompts))
    return KeptOutput(
        path,
        form,
        sink,
        settings,
        overwrite=values["overwrite"],
        retry_errors=values["retry_errors"],
        retry_suspect=values["retry_suspect"],
    )


def _write_report(job: Job, kept: KeptOutput | None) -> None:
    path = job.values["report"]
    if path is None or kept is None:
        return
    from dsvl_cli.batch.output.report import make_thumbnail, write_report
    from dsvl_cli.batch.sources.lookup import ItemLookup

    lookup = ItemLookup(kept.settings.column)

    def thumbnail_of(row: Row) -> bytes | None:
        data = lookup.read(row)
        return make_thumbnail(data[0]) if data else None

    about = f"{kept.shown}, {kept.settings.model}: {' / '.join(kept.settings.prompts.values())}"
    write_report(path, kept.journal.rows(), thumbnail_of, about=about)


def _conclude(
    console: Console,
    job: Job,
    kept: KeptOutput | None,
    supply: Supply,
    tally: Tally,
    seconds: float,
    signal_number: int | None,
) -> None:
    """Say what was done, and end as it ended."""
    out = job.values["out"]
    for line in _summary(out, kept, supply, tally, seconds):
        console.status(line)
    failed = kept.journal.count("error") if kept else tally.failed
    if signal_number is not None:
        console.status("the same command goes on from here" if kept else "ended before all was done")
        if signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal_number)
    if tally.ending == "max-errors":
        raise DsvlError(f"stopped: more than {job.values['max_errors']} failed", "--retry-errors does them again")
    if tally.ending == "all-fail":
        raise DsvlError(
            f"stopped: {FAILURES_IN_A_ROW} failed one after the other",
            "see to what they have in common; --retry-errors does them again",
        )
    if failed:
        raise SomeFailed(f"{failed} rows are errors")


def _summary(out: str, kept: KeptOutput | None, supply: Supply, tally: Tally, seconds: float) -> Iterator[str]:
    if tally.done:
        rate = per_minute(tally.done, seconds)
        pace = f" in {clock_time(seconds)}" + (f", {rate} pictures a minute" if rate else "")
        yield f"{_counts(tally.answered, tally.suspect, tally.failed)}{pace}"
    elif supply.found == 0:
        yield "no pictures were found"
    else:
        yield f"nothing to do: of {supply.found:,} found, all are done"
    if kept is None:
        return
    counts = [kept.journal.count(status) for status in ("answered", "suspect", "error")]
    if len(kept.journal) != tally.done and len(kept.journal):
        yield f"{out} now has {_counts(*counts)}"
    again = [flag for flag, count in (("--retry-suspect", counts[1]), ("--retry-errors", counts[2])) if count]
    if again:
        yield f"{' and '.join(again)} would do those again"


def _counts(answered: int, suspect: int, failed: int) -> str:
    parts = [
        f"{answered:,} answered",
        f"{suspect:,} suspect" if suspect else "",
        f"{failed:,} failed" if failed else "",
    ]
    return ", ".join(filter(None, parts))

"""Runs a batch: pictures in, rows out, with progress on the way."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from dsvl_cli.app.batch.check import mark_stale
from dsvl_cli.app.batch.conclusion import RunOutcome, conclude
from dsvl_cli.app.batch.output import open_output
from dsvl_cli.app.batch.paths import check_paths
from dsvl_cli.batch.captioner import Captioner
from dsvl_cli.batch.output.output import KeptOutput
from dsvl_cli.batch.runner import Runner, Tally
from dsvl_cli.batch.sources.leftovers import Skipped
from dsvl_cli.batch.sources.scanner import Scanner
from dsvl_cli.batch.stopping import StopSignals
from dsvl_cli.batch.templates import fill_prompts
from dsvl_cli.engine.checkpoint.find import find_checkpoint
from dsvl_cli.errors import NotFetched, SomeFailed
from dsvl_cli.terminal.batch import BatchProgress
from dsvl_cli.terminal.deferral import deferred_signals
from dsvl_cli.terminal.progress import ConsoleListener
from dsvl_cli.terminal.waiting import CTRL_C_STOPS, Wait

if TYPE_CHECKING:
    from pathlib import Path

    from dsvl_cli.app.batch.job import Job
    from dsvl_cli.batch.output.settings import Settings
    from dsvl_cli.batch.row import Row
    from dsvl_cli.engine.checkpoint.find import Checkpoint
    from dsvl_cli.engine.conversation import BatchModel
    from dsvl_cli.engine.progress import Listener
    from dsvl_cli.terminal.console import Console


def make_rows(console: Console, job: Job) -> None:
    """Start or resume a batch.

    Raises:
        SomeFailed: some rows are errors; each was reported.
        DsvlError: a source does not exist, the output is from something else, or loading or writing fails.
        KeyboardInterrupt, SystemExit: a signal ended the run; pictures in progress were finished and saved.
    """
    options = job.options
    listener = ConsoleListener(console)
    job.questions(has_chat=True)  # a mistake in them is to be seen before a model is downloaded
    with console.working(Wait(f"checking {job.load.model}", CTRL_C_STOPS)):
        checkpoint = find_checkpoint(job.load, listener)
    settings = job.settings(checkpoint, job.questions(has_chat=checkpoint.has_chat))
    batch_size = job.batch_size
    paths = check_paths(job, checkpoint)
    unread: list[str] = []
    skipped = Skipped()
    items = job.items(unread.append, paths.outputs, skipped)  # first: without its pictures, a run leaves nothing behind
    with ExitStack() as stack:
        output = open_output(options, settings, paths.reserved)
        kept = stack.enter_context(output) if isinstance(output, KeptOutput) else None
        if kept is not None and options.retry_stale:
            mark_stale(console, job, kept)
        scanner = Scanner(items, output.select)
        stack.callback(scanner.close)
        scanner.start()
        signal_number, tally, seconds, notes = None, Tally(), 0.0, list[str]()
        with console.working(Wait("looking for pictures", CTRL_C_STOPS)):
            has_items = scanner.wait()
        if has_items:  # otherwise no model is needed
            loading = f"loading {checkpoint.name}"
            with console.working(Wait(loading, CTRL_C_STOPS, loading)):
                model = _load_model(job, checkpoint, listener)
                together = batch_size or model.choose_batch_size()
            captioner = _make_captioner(model, kept, settings, batch_size)
            progress = BatchProgress(
                console,
                len(kept.journal) if kept else 0,
                str(options.out),
                batch=max(1, together // (len(settings.prompts) * settings.samples)),
                due=lambda: scanner.due if scanner.is_complete else None,
            )
            teller = _Teller(progress, scanner)
            runner = Runner(captioner, output, options.max_errors, teller)
            with StopSignals(lambda: _stop(runner, progress)) as signals:
                try:
                    progress.start()
                    tally = runner.run(scanner)
                finally:
                    progress.close()
            signal_number, seconds, notes = signals.number, progress.seconds, captioner.notes.lines()
            if kept is not None and teller.has_samples and not _shows_samples(kept.settings):
                notes.append(
                    f"{options.out} has one answer of several; a .jsonl file has all, and how far they disagree"
                )
        else:
            output.finish()
        if kept is not None and options.report is not None:
            with console.working(Wait("writing the report", CTRL_C_STOPS)):
                _write_report(kept, options.report, outside=options.allow_outside_paths)
        for text in unread:
            console.warn(text)
        conclude(console, options, RunOutcome(kept, scanner.found, skipped, notes, tally, seconds, signal_number))
        if unread:
            raise SomeFailed("folders could not be read")


class _Teller:
    """Reports each row to the progress."""

    def __init__(self, progress: BatchProgress, scanner: Scanner) -> None:
        self._progress = progress
        self._scanner = scanner
        self.has_samples = False

    def __call__(self, row: Row, tally: Tally) -> None:
        self.has_samples = self.has_samples or any(answer.samples for answer in row.answers.values())
        if row.error is not None:
            message, file = row.error.message, row.path.partition("::")[0]
            self._progress.error(message if message.startswith(file) else f"{row.path}: {message}")
        due = self._scanner.due if self._scanner.is_complete else None
        self._progress.update(tally.done, due, tally.failed, tally.suspect)


def _shows_samples(settings: Settings) -> bool:
    """Whether the output has a place for several answers: tables have it if the run asks for them, not a request."""
    return settings.format in ("jsonl", "openai") or (settings.format in ("csv", "parquet") and settings.samples > 1)


def _load_model(job: Job, checkpoint: Checkpoint, listener: Listener) -> BatchModel:
    with deferred_signals():
        from dsvl_cli.engine.model import load_model

    return load_model(job.load, listener, checkpoint)


def _make_captioner(
    model: BatchModel, kept: KeptOutput | None, settings: Settings, batch_size: int | None
) -> Captioner:
    settings, trials = (kept.settings, kept.trials) if kept else (settings, None)
    return Captioner.of(model, settings, batch_size, trials, partial(fill_prompts, extension=settings.sidecar))


def _stop(runner: Runner, progress: BatchProgress) -> None:
    runner.stop()
    progress.say("finishing the pictures in progress; interrupt again to stop at once")


def _write_report(kept: KeptOutput, path: Path, *, outside: bool) -> None:
    from dsvl_cli.batch.captioner import hash_pictures
    from dsvl_cli.batch.output.report import make_thumbnail, write_report
    from dsvl_cli.batch.sources.lookup import ItemLookup
    from dsvl_cli.engine.pictures.bounded import BoundedDecoder

    lookup = ItemLookup(kept.settings.column, outside=outside)

    decoder = BoundedDecoder()

    def thumbnail_of(row: Row) -> bytes | None:
        if row.width is None:  # it could not be decoded then
            return None
        try:
            data = lookup.read(row)
        except NotFetched:
            return None
        # No other picture than the one that was answered about: the path of a row says nothing of what is there now.
        return make_thumbnail(data[0], decoder.read) if data and hash_pictures(data) == row.sha256 else None

    about = f"{kept.shown}, {kept.settings.model}: {' / '.join(kept.settings.prompts.values())}"
    try:
        write_report(path, kept.journal.rows(), thumbnail_of, about=about)
    finally:
        decoder.close()

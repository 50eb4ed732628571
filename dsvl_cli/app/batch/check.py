"""`dsvl batch --check`: which rows of an output are stale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.batch.check import CHANGED, GONE, find_stale
from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.batch.output.output import journal_path, settings_path_of
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.engine.checkpoint.find import find_checkpoint
from dsvl_cli.engine.progress import Silence
from dsvl_cli.errors import DsvlError, SomeFailed
from dsvl_cli.terminal.waiting import CTRL_C_STOPS, Wait

if TYPE_CHECKING:
    from dsvl_cli.app.batch.job import Job
    from dsvl_cli.batch.output.output import KeptOutput
    from dsvl_cli.terminal.console import Console


def check_output(console: Console, job: Job, out: str) -> None:
    """Print which rows of an output are stale.

    Raises:
        SomeFailed: some are; each was printed.
        DsvlError: there is no such output.
    """
    path = Path(out).resolve()
    stored = Settings.read(settings_path_of(path))
    journal = Journal(journal_path(path, stored.format if stored else None))
    if stored is None or not journal.path.exists():
        raise DsvlError(f"{out} was not written by `dsvl batch`", "give the output of an earlier run")
    journal.peek()
    # If a change makes every row stale, there is no need to look at the pictures.
    changes = ", ".join(_find_changes(console, job, stored))
    rows = journal.rows()
    reasons = (
        ((row, changes) for row in rows)
        if changes
        else find_stale(rows, stored.column, outside=job.options.allow_outside_paths)
    )
    stale = 0
    for row, reason in reasons:
        stale += 1
        console.write(f"{row.path}: {reason}\n")
    console.status(f"{out}: {stale:,} of {len(journal):,} rows are stale")
    if stale:
        raise SomeFailed(f"{stale} rows are stale")


def mark_stale(console: Console, job: Job, kept: KeptOutput) -> None:
    """Have the rows of an output redone whose picture has changed, and say how many pictures are gone."""
    with console.working(Wait("comparing the pictures with their rows", CTRL_C_STOPS)):
        found = list(find_stale(kept.journal.rows(), kept.settings.column, outside=job.options.allow_outside_paths))
    kept.mark_stale(row.id for row, reason in found if reason == CHANGED)
    if gone := sum(reason == GONE for _, reason in found):
        rows = (
            "1 row is left as it is: its picture is"
            if gone == 1
            else f"{gone:,} rows are left as they are: their pictures are"
        )
        console.status(f"{rows} gone")


def _find_changes(console: Console, job: Job, stored: Settings) -> Iterator[str]:
    """Yield the changes that affect all rows; options not on the command line count as unchanged."""
    given = job.options.given
    load = job.load if "model" in given else replace(job.load, model=stored.model)
    try:
        checkpoint = find_checkpoint(replace(load, offline=True), Silence())
        if checkpoint.fingerprint != stored.fingerprint:
            yield f"the model has changed to {checkpoint.name}"
    except DsvlError as error:
        console.warn(f"the model was not compared: {error.message}")
    if given & {"prompt", "prompt_file", "ask"} and job.questions(has_chat=True).prompts != stored.prompts:
        yield "the prompt has changed"
    if (
        given & {"ask", "choices", "yes_no", "schema"}
        and job.questions(has_chat=True).constraints != stored.read_constraints()
    ):
        yield "the form of the answers has changed"
    if "samples" in given and job.options.samples != stored.samples:
        yield "the number of samples has changed"
    if "system" in given and job.options.system != stored.system:
        yield "the system prompt has changed"

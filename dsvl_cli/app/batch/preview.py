"""`dsvl batch --dry-run`: shows what would be done, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dsvl_cli.app.batch.check import mark_stale
from dsvl_cli.app.batch.output import find_format, open_output
from dsvl_cli.app.batch.paths import check_paths
from dsvl_cli.batch.output.output import KeptOutput
from dsvl_cli.batch.sources.leftovers import Skipped
from dsvl_cli.engine.checkpoint.find import find_checkpoint
from dsvl_cli.terminal.progress import ConsoleListener
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from dsvl_cli.app.batch.job import Job
    from dsvl_cli.terminal.console import Console


def preview_rows(console: Console, job: Job) -> None:
    """Print what would be done, and change nothing.

    Raises:
        DsvlError: the batch could not be run.
    """
    checkpoint = find_checkpoint(replace(job.load, offline=True), ConsoleListener(console))
    questions = job.questions(has_chat=checkpoint.has_chat)
    paths = check_paths(job, checkpoint)
    output = open_output(job.options, job.settings(checkpoint, questions), paths.reserved)
    if isinstance(output, KeptOutput):
        output.peek()
        if job.options.retry_stale:
            mark_stale(console, job, output)
    found = due = 0
    skipped = Skipped()
    for item in job.items(console.warn, paths.outputs, skipped):
        found += 1
        due += output.select(item) is not None
    rows = [
        ("found", f"{found:,}"),
        ("to do", f"{due:,}"),
        ("done or skipped", f"{found - due:,}"),
        *(("left out", line) for line in skipped.lines()),
        ("model", checkpoint.name),
        *(("question" if name == "text" else name, prompt or "(none)") for name, prompt in questions.prompts.items()),
        *([("samples", str(job.options.samples))] if job.options.samples > 1 else []),
        ("output", f"{job.options.out} ({find_format(job.options) or 'rows as they are ready'})"),
    ]
    console.write("\n".join(align(rows, console.width)) + "\n")

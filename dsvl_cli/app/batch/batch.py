"""What `dsvl batch` does: it makes the rows, or says which it would make, or which are stale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsvl_cli.app.batch.check import check_output
from dsvl_cli.app.batch.job import Job
from dsvl_cli.app.batch.preview import preview_rows
from dsvl_cli.app.batch.run import make_rows

if TYPE_CHECKING:
    from dsvl_cli.app.batch.options import BatchOptions
    from dsvl_cli.engine.options import LoadOptions, SamplingParams
    from dsvl_cli.terminal.console import Console


def run_batch(console: Console, options: BatchOptions, load: LoadOptions, sampling: SamplingParams) -> None:
    """Do what is asked for.

    Raises:
        SomeFailed: rows are errors, or stale; they were told.
        DsvlError: it cannot be done.
        KeyboardInterrupt, SystemExit: a signal asked to end; what was in flight was finished and kept.
    """
    job = Job(options, load, sampling)
    if options.check is not None:
        check_output(console, job, options.check)
    elif options.dry_run:
        preview_rows(console, job)
    else:
        make_rows(console, job)

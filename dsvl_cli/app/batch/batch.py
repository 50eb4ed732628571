"""`dsvl batch`: makes the rows, previews the run, or lists stale rows."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from dsvl_cli.app.batch.check import check_output
from dsvl_cli.app.batch.job import Job
from dsvl_cli.app.batch.preview import preview_rows
from dsvl_cli.app.batch.run import make_rows
from dsvl_cli.batch.output.imagefolder import METADATA

if TYPE_CHECKING:
    from dsvl_cli.app.batch.options import BatchOptions
    from dsvl_cli.engine.options import LoadOptions, SamplingParams
    from dsvl_cli.terminal.console import Console


def run_batch(console: Console, options: BatchOptions, load: LoadOptions, sampling: SamplingParams) -> None:
    """Run, preview or check a batch.

    Raises:
        SomeFailed: some rows are errors, or stale; each was reported.
        DsvlError: the batch cannot be run.
        KeyboardInterrupt, SystemExit: a signal ended the run; pictures in progress were finished and saved.
    """
    if options.format == "imagefolder" and options.out is not None and os.path.isdir(options.out):
        options = replace(options, out=os.path.join(options.out, METADATA))
    job = Job(options, load, sampling)
    if options.check is not None:
        check_output(console, job, options.check)
    elif options.dry_run:
        preview_rows(console, job)
    else:
        make_rows(console, job)

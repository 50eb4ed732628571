"""Where the rows of a job go, and as what."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.app.batch.job import STDIO
from dsvl_cli.batch.output.formats import FORMATS_BY_EXTENSION, Format
from dsvl_cli.batch.output.output import TABLE_WRITERS, JournalOnly, KeptOutput, Sink, StreamOutput, Table
from dsvl_cli.batch.output.responses import to_response_line
from dsvl_cli.batch.output.sidecars import Sidecars
from dsvl_cli.batch.output.tables import check_parquet
from dsvl_cli.batch.row import Row
from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from dsvl_cli.app.batch.options import BatchOptions
    from dsvl_cli.batch.output.settings import Settings


def find_format(options: BatchOptions) -> Format | None:
    """Tell what OUT is; None where it is a stream.

    Raises:
        UsageError: there is none, or it cannot be what it is to be.
    """
    out, form = options.out, options.format
    if out is None:
        raise UsageError("where do the rows go? No OUT is given", "-o captions.jsonl, a folder, or - for stdout")
    path = Path(out)
    if out == STDIO or (path.exists() and not (path.is_dir() or stat.S_ISREG(path.stat().st_mode))):
        if form not in (None, "jsonl", "openai"):
            raise UsageError(f"{form} cannot be streamed", "give a file with -o")
        return None
    found = form or FORMATS_BY_EXTENSION.get(path.suffix.lower())
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


def open_output(options: BatchOptions, settings: Settings) -> KeptOutput | StreamOutput:
    """Make the output; a kept one is to be entered before anything is written.

    Raises:
        UsageError: options do not go with what OUT is.
        DsvlError: a package is missing that writes it.
    """
    form = find_format(options)
    if options.existing is not None and form != "txt":
        raise UsageError("--existing is for text files", "name a folder with -o")
    out = str(options.out)
    if form is None:
        if options.report is not None:
            raise UsageError("a report is made of rows that are kept", "give a file with -o")
        to_line = to_response_line if options.format == "openai" else Row.to_line
        if out == STDIO:
            return StreamOutput(sys.stdout.buffer, "stdout", to_line)
        return StreamOutput(open(out, "wb", buffering=0), out, to_line)  # until the end
    path = Path(out)
    return KeptOutput(
        path,
        form,
        _make_sink(path, form, options, settings),
        settings,
        overwrite=options.overwrite,
        retry_errors=options.retry_errors,
        retry_suspect=options.retry_suspect,
    )


def _make_sink(path: Path, form: Format, options: BatchOptions, settings: Settings) -> Sink:
    if form == "txt":
        return Sidecars(path, options.existing or ("overwrite" if options.overwrite else "skip"))
    if form not in TABLE_WRITERS:
        return JournalOnly()
    if form == "parquet":
        check_parquet()
    return Table(path, TABLE_WRITERS[form], tuple(settings.prompts))

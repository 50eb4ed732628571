"""The output of a batch and its format."""

from __future__ import annotations

import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.app.batch.job import STDIO
from dsvl_cli.batch.output.formats import FORMATS_BY_EXTENSION, Format
from dsvl_cli.batch.output.imagefolder import METADATA, ImageFolder
from dsvl_cli.batch.output.output import KeptOutput, StreamOutput
from dsvl_cli.batch.output.responses import to_response_line
from dsvl_cli.batch.output.sidecars import Sidecars
from dsvl_cli.batch.output.sinks import TABLE_WRITERS, JournalOnly, Sink, Table
from dsvl_cli.batch.output.tables import check_parquet, write_csv, write_parquet
from dsvl_cli.batch.row import Row
from dsvl_cli.batch.templates import find_variables
from dsvl_cli.errors import DsvlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Container

    from dsvl_cli.app.batch.options import BatchOptions
    from dsvl_cli.batch.output.settings import Settings


def find_format(options: BatchOptions) -> Format | None:
    """Return the format of the output, or None if it is a stream.

    Raises:
        UsageError: there is no output, or it does not match its format.
    """
    out, form = options.out, options.format
    if out is None:
        raise UsageError("no output is given", "add -o captions.jsonl, -o FOLDER, or -o - for stdout")
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
            f"{out}: the extension {path.suffix!r} is not that of a known format",
            "use .jsonl, .csv or .parquet, a folder, or add --format",
        )
    if found == "imagefolder" and path.name != METADATA:
        raise UsageError(f"{out} is not named {METADATA}, as ImageFolder wants it", f"-o FOLDER/{METADATA}")
    if found != "txt" and path.is_dir():
        raise UsageError(f"{out} is a folder, but {found} needs a file", "give a file with -o")
    return found


def open_output(options: BatchOptions, settings: Settings, reserved: Container[Path] = ()) -> KeptOutput | StreamOutput:
    """Return the output; a `KeptOutput` must be entered before anything is written.

    Args:
        options: the options of the batch.
        settings: what its rows depend on.
        reserved: the files that no text may replace.

    Raises:
        UsageError: options do not match the output.
        DsvlError: a package needed to write it is missing.
    """
    form = find_format(options)
    if options.bom and form != "csv":
        raise UsageError("--bom is only for CSV tables", "give a .csv file with -o, or leave it out")
    if options.existing is not None and form != "txt":
        raise UsageError("--existing is only for text files", "give a folder with -o")
    if (options.prefix or options.suffix) and form not in ("txt", "imagefolder"):
        raise UsageError("--prefix and --suffix are only for text files and imagefolder", "give a folder with -o")
    if (
        "sidecar" in options.given
        and form != "txt"
        and not any("caption" in find_variables(text) for text in settings.prompts.values())
    ):
        raise UsageError("--sidecar is only for text files and {caption}", "give a folder with -o")
    out = str(options.out)
    if form is None:
        if options.report is not None:
            raise UsageError("--report needs saved rows", "give a file with -o")
        to_line = to_response_line if options.format == "openai" else Row.to_line
        if out == STDIO:
            if sys.stdout is None:
                raise DsvlError("stdout is closed", "give a file with -o")
            return StreamOutput(sys.stdout.buffer, "stdout", to_line)
        return StreamOutput(open(out, "wb", buffering=0), out, to_line)  # open until the end
    path = Path(out)
    return KeptOutput(
        path,
        form,
        _make_sink(Path(os.path.realpath(path)), form, options, settings, reserved),
        settings,
        overwrite=options.overwrite,
        retry_errors=options.retry_errors,
        retry_suspect=options.retry_suspect,
    )


def _make_sink(path: Path, form: Format, options: BatchOptions, settings: Settings, reserved: Container[Path]) -> Sink:
    if form == "txt":
        existing = options.existing or ("overwrite" if options.overwrite else "skip")
        return Sidecars(path, existing, reserved, settings.sidecar, settings.dress)
    if form == "imagefolder":
        return ImageFolder(path, tuple(settings.prompts), settings.dress)
    if form not in TABLE_WRITERS:
        return JournalOnly()
    if form == "parquet":
        check_parquet()
    writer = TABLE_WRITERS[form]
    forms: dict[str, Any] = {"constraints": settings.read_constraints(), "has_samples": settings.samples > 1}
    if form == "csv":
        writer = partial(write_csv, mark=options.bom, **forms)
    elif form == "parquet":
        writer = partial(write_parquet, **forms)
    return Table(path, writer, tuple(settings.prompts), mark=options.bom)

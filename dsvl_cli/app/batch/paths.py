"""Which files a batch writes, and that none of them is one that it reads, or another that it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.app.batch.job import STDIO
from dsvl_cli.app.batch.output import find_format
from dsvl_cli.batch.output.output import written_paths
from dsvl_cli.batch.output.report import check_report
from dsvl_cli.batch.path_set import PathSet
from dsvl_cli.batch.sources.scan import list_paths
from dsvl_cli.engine.pictures.addresses import local_path
from dsvl_cli.engine.pictures.images import is_path
from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from dsvl_cli.app.batch.job import Job
    from dsvl_cli.engine.checkpoint.find import Checkpoint


@dataclass(frozen=True, slots=True)
class BatchPaths:
    """The files of a batch.

    Attributes:
        outputs: what it writes, apart from text files: no sources, wherever they are.
        reserved: what no text file may replace: what it reads, as far as it is named, and the outputs.
    """

    outputs: PathSet
    reserved: PathSet


def check_paths(job: Job, checkpoint: Checkpoint) -> BatchPaths:
    """Return the files of a batch, before any of them is touched.

    Raises:
        UsageError: one would be written that is read, or that is written for another purpose.
    """
    written = _list_written(job)
    outputs = PathSet()
    for path in written:
        if path in outputs:
            raise UsageError(f"{path} would be written twice", "give each output a name of its own")
        outputs.add(path)
    reserved = PathSet(written)
    for what, read in _list_read(job, checkpoint):
        if read in outputs:
            raise UsageError(f"{read} would be overwritten, but it is {what}", "write elsewhere with -o or --report")
        reserved.add(read)
    if job.options.report is not None:
        check_report(job.options.report)
    if (listed := next((name for name in _list_names(job) if name in outputs), None)) is not None:
        raise UsageError(f"{listed} would be overwritten, but it is in the list of pictures", "write elsewhere with -o")
    return BatchPaths(outputs, reserved)


def _list_written(job: Job) -> list[Path]:
    options = job.options
    form = find_format(options)
    if form is None or options.out is None:
        return []
    written = written_paths(Path(options.out), form)
    if options.report is not None:
        if options.report.is_dir():
            raise UsageError(f"{options.report} is a folder", "give a file with --report")
        if not options.report.parent.is_dir():
            raise UsageError(
                f"--report is {options.report}, but there is no folder {options.report.parent}", "create it first"
            )
        written.append(options.report)
    for path in written:
        if path.is_dir():
            raise UsageError(f"{path} is a folder, but would be written as a file", "write elsewhere with -o")
    return written


def _list_read(job: Job, checkpoint: Checkpoint) -> Iterator[tuple[str, str | Path]]:
    """Yield what is read, with a word about it; not the contents of folders, where outputs are passed over."""
    options = job.options
    for source in map(local_path, options.sources):
        if is_path(source) and not os.path.isdir(source):
            yield "a source", source
    if options.prompt_file is not None:
        yield "the prompt file", options.prompt_file
    if options.ask is not None:
        yield "the file of questions", options.ask
    yield from (("a file of the model", checkpoint.path / name) for name in os.listdir(checkpoint.path))
    if options.files_from not in (None, STDIO):
        yield "the list of pictures", str(options.files_from)


def _list_names(job: Job) -> Iterator[str]:
    name = job.options.files_from
    if name in (None, STDIO) or not os.path.isfile(str(name)):  # a pipe can only be read once
        return
    with open(str(name), "rb") as names:
        paths = map(local_path, list_paths(names))
        yield from filter(is_path, paths)

"""The options that only `dsvl batch` has, with their types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dsvl_cli.batch.output.formats import Existing, Format


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """The options of a batch, besides those for loading and sampling.

    There are no defaults here, so that no option is forgotten; the defaults are in the declarations of the options.

    Attributes:
        sources: folders, globs, pictures, URLs, tables, shards, requests.
        recursive: search subfolders.
        extensions: of files taken from folders, each string one or several separated by commas; empty for all pictures.
        every: take hidden files, thumbnails and system files in folders.
        exclude: patterns of files and folders to leave out.
        follow_links: follow symbolic links in folders.
        column: the column of a table that has the pictures.
        files_from: a file of paths; `-` is stdin.
        allow_private_addresses: fetch pictures that a list names from this machine and its network.
        allow_outside_paths: read pictures that requests or a table name outside their folder.
        prompt, prompt_file, ask: the prompt, a file with the prompt, or a file of several questions.
        choices, yes_no, schema: what form the answers must have.
        samples: how many answers to give to each question.
        min_probability: an answer from a list is suspect below it.
        system: replaces the model's default system prompt.
        seed: the seed that was asked for, or None to draw one.
        out: where the rows go; `-` is stdout.
        format: the format of `out`, or None to infer it from the name.
        bom: begin a CSV table with a byte order mark.
        existing: what to do with text files that already exist; None for `skip`, or `overwrite` if that is set.
        sidecar: the extension of text files.
        prefix, suffix: what to put before and after answers in text files.
        separator: what to put between these and the answer.
        overwrite: start over.
        report: where to write an HTML report.
        batch_size: `auto`, or a number, as it was typed.
        retry_errors, retry_suspect, retry_stale: redo such rows.
        max_errors: stop after more failures than this.
        dry_run: only show what would be done.
        check: only list the stale rows of this output.
        given: the names of the parameters set on the command line, not in the environment or a file.
    """

    sources: tuple[str, ...]
    recursive: bool
    extensions: tuple[str, ...]
    every: bool
    exclude: tuple[str, ...]
    follow_links: bool
    column: str | None
    files_from: str | None
    allow_private_addresses: bool
    allow_outside_paths: bool
    prompt: str | None
    prompt_file: Path | None
    ask: Path | None
    choices: str | None
    yes_no: bool
    schema: str | None
    samples: int
    min_probability: float | None
    system: str | None
    seed: int | None
    out: str | None
    format: Format | None
    bom: bool
    existing: Existing | None
    sidecar: str
    prefix: str | None
    suffix: str | None
    separator: str
    overwrite: bool
    report: Path | None
    batch_size: str
    retry_errors: bool
    retry_suspect: bool
    retry_stale: bool
    max_errors: int | None
    dry_run: bool
    check: str | None
    given: frozenset[str]

"""What `dsvl batch` can be asked for, each option with its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dsvl_cli.batch.output.formats import Existing, Format


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What is asked for, besides how to load the model and how to answer.

    There are no defaults: those stand where the options are declared, and none is forgotten on the way here.

    Attributes:
        sources: folders, patterns, pictures, addresses, tables, shards, requests.
        recursive: look into the folders within a folder.
        extensions: of the files of a folder, each text one or several with commas between; all pictures where empty.
        follow_links: take links within folders, too.
        column: of a table, the one with the pictures.
        files_from: the file that lists paths; `-` is stdin.
        prompt, prompt_file, ask: the question itself, or the file that it stands in, or a file of several.
        system: replaces the model's default system text.
        seed: what is asked for; None where one may be drawn.
        out: where the rows go; `-` is stdout.
        format: what `out` is, where its name does not say so.
        existing: what becomes of text files that are there already; None for `skip`, or what `overwrite` says.
        overwrite: begin anew.
        report: where to write a page about the rows.
        batch_size: `auto`, or a number, as it was typed.
        retry_errors, retry_suspect: do such rows again.
        max_errors: stop when more have failed.
        dry_run: only say what would be done.
        check: an output of which only to tell what is stale.
        given: the names of the parameters that stand on the command line itself, not in the environment or a file.
    """

    sources: tuple[str, ...]
    recursive: bool
    extensions: tuple[str, ...]
    follow_links: bool
    column: str | None
    files_from: str | None
    prompt: str | None
    prompt_file: Path | None
    ask: Path | None
    system: str | None
    seed: int | None
    out: str | None
    format: Format | None
    existing: Existing | None
    overwrite: bool
    report: Path | None
    batch_size: str
    retry_errors: bool
    retry_suspect: bool
    max_errors: int | None
    dry_run: bool
    check: str | None
    given: frozenset[str]

"""The options that only `dsvl batch` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsvl_cli.batch.output.formats import Existing, Format
from dsvl_cli.commands import options
from dsvl_cli.engine.options import DEFAULT_PROMPT

_SOURCES, _QUESTION, _ROWS, _RUN = "Sources", "Question", "Rows", "Run"


def _option(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002
    return typer.Option(*names, rich_help_panel=panel, help=help, **{"show_default": False, **more})


Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[IMAGE...]", autocompletion=options.complete_picture, show_default=False,
        help="Folders, globs, pictures, addresses; .parquet files and folders of them, .tar shards, .jsonl requests.",
    ),
]  # fmt: skip
Recursive = Annotated[bool, _option(_SOURCES, "--recursive", "-r", help="Look into the folders within.")]
Extensions = Annotated[
    list[str] | None,
    _option(_SOURCES, "--ext", metavar="EXT", help="In folders take files of this extension; may be repeated."),
]
FollowLinks = Annotated[bool, _option(_SOURCES, "--follow-links", help="Follow links within folders.")]
Column = Annotated[
    str | None,
    _option(_SOURCES, "--column", metavar="NAME", help="In Parquet tables take the pictures of this column."),
]
FilesFrom = Annotated[
    str | None,
    _option(
        _SOURCES, "--files-from", metavar="FILE",
        help="Read paths from a file, or from stdin with -: one a line, or ended by NULs.",
    ),
]  # fmt: skip

Prompt = Annotated[
    str | None,
    _option(
        _QUESTION, "--prompt", "-p", envvar="DSVL_PROMPT", show_envvar=False, metavar="TEXT",
        help=f"What to ask. By default: {DEFAULT_PROMPT}",
    ),
]  # fmt: skip
PromptFile = Annotated[Path | None, _option(_QUESTION, "--prompt-file", metavar="FILE", help="Ask what stands there.")]
Ask = Annotated[
    Path | None,
    _option(
        _QUESTION, "--ask", metavar="FILE",
        help='Ask several questions, one column each: a TOML file of lines such as colour = "Which colour is it?"',
    ),
]  # fmt: skip

Out = Annotated[
    str | None,
    _option(
        _ROWS, "--out", "-o", metavar="PATH",
        help="A .jsonl, .csv or .parquet file, a folder for text files, or - for rows on stdout.",
    ),
]  # fmt: skip
FormatOption = Annotated[
    Format | None,
    _option(
        _ROWS,
        "--format",
        help="What OUT is, where its name does not say so; openai is a .jsonl of what OpenAI's batches give.",
    ),
]
ExistingOption = Annotated[
    Existing | None,
    _option(_ROWS, "--existing", help="What becomes of text files that are there already; by default skip."),
]
Overwrite = Annotated[bool, _option(_ROWS, "--overwrite", help="Begin anew, and drop the rows in OUT.")]
Report = Annotated[
    Path | None,
    _option(_ROWS, "--report", metavar="FILE", help="Also write a page of thumbnails, answers and errors, in HTML."),
]

BatchSize = Annotated[
    str,
    _option(
        _RUN, "--batch-size", metavar="auto|N", show_default=True,
        help="So many answers at a time; auto takes what the memory bears.",
    ),
]  # fmt: skip
RetryErrors = Annotated[bool, _option(_RUN, "--retry-errors", help="Do again what failed before.")]
RetrySuspect = Annotated[
    bool,
    _option(
        _RUN, "--retry-suspect",
        help="Do again, with other sampling, what looped, was empty, echoed the prompt or was cut.",
    ),
]  # fmt: skip
MaxErrors = Annotated[
    int | None,
    _option(
        _RUN, "--max-errors", min=0, metavar="N",
        help="Stop when more than N have failed. A hundred in a row always stop it.",
    ),
]  # fmt: skip
DryRun = Annotated[bool, _option(_RUN, "--dry-run", help="Say what would be done, and do nothing.")]
Check = Annotated[
    str | None,
    _option(
        _RUN, "--check", metavar="PATH",
        help="Only tell which rows of an OUT are stale: picture changed or gone, other prompt or model.",
    ),
]  # fmt: skip

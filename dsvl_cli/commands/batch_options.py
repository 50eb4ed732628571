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
        metavar="IMAGE...", autocompletion=options.complete_picture, show_default=False,
        help="Folders, globs, pictures, URLs; .parquet files or folders of them, .tar shards, .jsonl requests.",
    ),
]  # fmt: skip
Recursive = Annotated[bool, _option(_SOURCES, "--recursive", "-r", help="Search subfolders too.")]
Extensions = Annotated[
    list[str] | None,
    _option(
        _SOURCES, "--ext", metavar="EXT", help="Take only files with this extension from folders; may be repeated."
    ),
]
All = Annotated[bool, _option(_SOURCES, "--all", help="Take hidden files, thumbnails and system files in folders too.")]
Exclude = Annotated[
    list[str] | None,
    _option(
        _SOURCES, "--exclude", metavar="GLOB",
        help="Leave out files and folders with such a name, or path in the folder: '*_thumb.*'; may be repeated.",
    ),
]  # fmt: skip
FollowLinks = Annotated[bool, _option(_SOURCES, "--follow-links", help="Follow symbolic links in folders.")]
Column = Annotated[
    str | None,
    _option(_SOURCES, "--column", metavar="NAME", help="The column of a Parquet table that has the pictures."),
]
FilesFrom = Annotated[
    str | None,
    _option(
        _SOURCES, "--files-from", metavar="FILE",
        help="Read paths from a file, or - for stdin: one per line, or NUL-terminated.",
    ),
]  # fmt: skip

AllowPrivateAddresses = Annotated[
    bool,
    _option(
        _SOURCES, "--allow-private-addresses",
        help="Fetch URLs in lists and requests from this machine and its network too.",
    ),
]  # fmt: skip
AllowOutsidePaths = Annotated[
    bool,
    _option(
        _SOURCES, "--allow-outside-paths",
        help="Read pictures that requests or a table name outside their own folder.",
    ),
]  # fmt: skip

Prompt = Annotated[
    str | None,
    _option(
        _QUESTION, "--prompt", "-p", envvar="DSVL_PROMPT", show_envvar=False, metavar="TEXT",
        callback=options.check_text,
        help=f"What to ask; {{name}}, {{folder}} and {{caption}} stand for those of each picture. "
        f"Default: {DEFAULT_PROMPT}",
    ),
]  # fmt: skip
PromptFile = Annotated[
    Path | None, _option(_QUESTION, "--prompt-file", metavar="FILE", help="Read the prompt from a file.")
]
Ask = Annotated[
    Path | None,
    _option(
        _QUESTION, "--ask", metavar="FILE",
        help='Ask several questions, one column each: a TOML file with lines such as colour = "Which colour is it?"',
    ),
]  # fmt: skip

MinProbability = Annotated[
    float | None,
    _option(
        _QUESTION, "--min-probability", metavar="P", min=0, max=1,
        help="Mark rows as suspect whose choice is less likely than P.",
    ),
]  # fmt: skip

Out = Annotated[
    str | None,
    _option(
        _ROWS, "--out", "-o", metavar="PATH",
        help="A .jsonl, .csv or .parquet file, a folder for text files, or - to print rows to stdout.",
    ),
]  # fmt: skip
FormatOption = Annotated[
    Format | None,
    _option(
        _ROWS,
        "--format",
        help="Output format, if not clear from the name; openai is a .jsonl like the results of OpenAI's Batch API, "
        "imagefolder a metadata.jsonl beside the pictures for Hugging Face's datasets.",
    ),
]
Bom = Annotated[
    bool, _option(_ROWS, "--bom", help="Begin a CSV table with a byte order mark, for Excel to read it as UTF-8.")
]
ExistingOption = Annotated[
    Existing | None,
    _option(_ROWS, "--existing", help="What to do with text files that already exist. Default: skip"),
]
Sidecar = Annotated[
    str,
    _option(
        _ROWS, "--sidecar", metavar="EXT", show_default=True, help="The extension of text files, such as .caption."
    ),
]
Prefix = Annotated[
    str | None,
    _option(
        _ROWS, "--prefix", metavar="TEXT", callback=options.check_text, help="Put this before answers in text files."
    ),
]
Suffix = Annotated[
    str | None,
    _option(
        _ROWS, "--suffix", metavar="TEXT", callback=options.check_text, help="Put this after answers in text files."
    ),
]
Separator = Annotated[
    str,
    _option(
        _ROWS, "--separator", metavar="TEXT", callback=options.check_text,
        help="Put this between prefix, answer and suffix. Default: a comma and a space.",
    ),
]  # fmt: skip
Overwrite = Annotated[
    bool,
    _option(_ROWS, "--overwrite", help="Start over. The old rows are dropped once the new ones are complete."),
]
Report = Annotated[
    Path | None,
    _option(_ROWS, "--report", metavar="FILE", help="Also write an HTML page of thumbnails, answers and errors."),
]

BatchSize = Annotated[
    str,
    _option(
        _RUN, "--batch-size", metavar="auto|N", show_default=True,
        help="Answers generated at a time; auto picks what fits in memory.",
    ),
]  # fmt: skip
RetryErrors = Annotated[bool, _option(_RUN, "--retry-errors", help="Retry what failed before.")]
RetrySuspect = Annotated[
    bool,
    _option(
        _RUN, "--retry-suspect",
        help="Retry suspect answers (looping, empty, echoing the prompt, cut off) with other sampling.",
    ),
]  # fmt: skip
RetryStale = Annotated[
    bool, _option(_RUN, "--retry-stale", help="Redo rows whose picture has changed, as --check lists them.")
]
MaxErrors = Annotated[
    int | None,
    _option(
        _RUN, "--max-errors", min=0, metavar="N",
        help="Stop after more than N failures. A hundred in a row always stop the run.",
    ),
]  # fmt: skip
DryRun = Annotated[bool, _option(_RUN, "--dry-run", help="Show what would be done, and do nothing.")]
Check = Annotated[
    str | None,
    _option(
        _RUN, "--check", metavar="PATH",
        help="Only list the stale rows of an output: picture changed or missing, other prompt or model.",
    ),
]  # fmt: skip

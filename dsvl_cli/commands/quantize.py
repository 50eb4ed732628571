"""`dsvl quantize MODEL OUT`: write a quantized copy of a model, and verify it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsvl_cli.commands import options
from dsvl_cli.commands.options import LOADING
from dsvl_cli.engine.options import Quantization

HELP_EPILOG = """
# Quantize to 4 bits; quantize to 8 bits and verify the copy; use a copy.
$ dsvl quantize 1.3b 1.3b-nf4 --format 4bit
$ dsvl quantize 1.3b 1.3b-int8 --format bnb-int8 --verify photo.jpg
$ dsvl describe photo.jpg --model ./1.3b-nf4
"""


def quantize(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            callback=options.resolve_alias,
            autocompletion=options.complete_model,
            show_default=False,
            help="An alias, a Hugging Face id, or a folder.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", show_default=False, help="The new folder.")],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE...",
            autocompletion=options.complete_picture,
            show_default=False,
            help="With --verify, the pictures to compare both models on. Default: three drawn pictures",
        ),
    ] = None,
    quantization: Annotated[
        Quantization,
        typer.Option(
            "--format",
            "--quantization",
            "-f",
            envvar="DSVL_QUANTIZATION",
            show_envvar=False,
            help="Format of the weights.",
        ),
    ] = "4bit",
    group_size: options.GroupSize = LOADING.group_size,
    include_vision: options.IncludeVision = LOADING.include_vision,
    include_head: options.IncludeHead = LOADING.include_head,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model in OUT.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the copy with the source; exit with 1 if it is damaged.")
    ] = False,
    profile: options.Profile = None,
    revision: options.Revision = LOADING.revision,
    offline: options.Offline = LOADING.offline,
    device: options.Device = LOADING.device,
    threads: options.Threads = LOADING.threads,
    force: options.Force = LOADING.force,
    as_json: options.Json = False,
    plain: options.Plain = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Write a quantized copy of a model: a folder that transformers can load anywhere.

    By default only the linear layers of the language model are quantized; the vision encoders stay as they are.

    The model is never loaded whole: the weights are read, quantized and written one by one.
    """
    from dsvl_cli.app.quantize import quantize_model

    quantize_model(
        options.make_console(ctx),
        options.load_options(ctx.params),
        out,
        images or [],
        overwrite=overwrite,
        verify=verify,
        as_json=as_json,
    )

"""`dsvl quantize MODEL OUT`: write a smaller copy of a model, and check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsvl_cli.commands import options
from dsvl_cli.commands.options import LOADING
from dsvl_cli.engine.options import Quantization

HELP_EPILOG = """
[bold]Examples[/bold]

dsvl quantize 1.3b 1.3b-nf4 --format 4bit

dsvl quantize 1.3b 1.3b-int8 --format bnb-int8 --verify photo.jpg diagram.png

dsvl describe photo.jpg --model ./1.3b-nf4
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
            metavar="[IMAGE...]",
            autocompletion=options.complete_picture,
            show_default=False,
            help="With --verify: what both models are asked about; three drawn pictures by default.",
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
            help="How to store the weights.",
        ),
    ] = "4bit",
    group_size: options.GroupSize = LOADING.group_size,
    include_vision: options.IncludeVision = LOADING.include_vision,
    include_head: options.IncludeHead = LOADING.include_head,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that stands at OUT.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Open what was written and compare it with the source; exit 1 if damaged.")
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
    """Write a quantized copy of a model: a folder that transformers loads anywhere.

    Only the language model's linear layers are quantized; what the model sees with stays as it is.

    Nothing is loaded to do so: the weights are read, quantized and written one by one.
    """
    from dsvl_cli.app.quantize import quantize_model

    quantize_model(
        options.make_console(ctx.params),
        options.load_options(ctx.params),
        out,
        images or [],
        overwrite=overwrite,
        verify=verify,
        as_json=as_json,
    )

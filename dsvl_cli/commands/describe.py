"""`dsvl describe IMAGE...`: describe pictures, or answer questions about them."""

from __future__ import annotations

from typing import Annotated

import typer

from dsvl_cli.commands import options
from dsvl_cli.commands.options import LOADING, SAMPLING
from dsvl_cli.engine.options import DEFAULT_PROMPT

HELP_EPILOG = """
# Describe a picture. `tiny` is built in: a toy model that knows drawn shapes and numbers.
$ dsvl describe photo.jpg
$ dsvl describe drawing.png --model tiny

# Ask a question; use pipes; print JSON.
$ dsvl describe receipt.jpg -p "What is the total?"
$ cat photo.jpg | dsvl describe - | tee caption.txt
$ dsvl describe *.png --json | jq -r .text

# Ask about several pictures together. <image> marks where each one goes; without it, they come first.
$ dsvl describe a.png b.png -p "How do <image> and <image> differ?"
$ dsvl describe a.png b.png c.png --together -p "Which is the odd one out?"

# Answers that programs can use: one of a list with its probability, or JSON.
$ dsvl describe photo.jpg -p "Is it day or night?" --choices Day,Night
$ dsvl describe receipt.jpg --schema "shop, total float" | jq .total

# Answer five times, to see how sure the model is.
$ dsvl describe photo.jpg --samples 5

Defaults can be set in the environment, such as DSVL_MODEL=tiny, or in config.toml: see dsvl doctor.
"""


def describe(
    ctx: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            autocompletion=options.complete_picture,
            show_default=False,
            help="Paths, globs, URLs (http, file, data), or - to read a picture from stdin.",
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            envvar="DSVL_PROMPT",
            show_envvar=False,
            metavar="TEXT",
            callback=options.check_text,
            rich_help_panel="Question",
            show_default=False,
            help=f"What to ask; - reads it from stdin. Default: {DEFAULT_PROMPT}",
        ),
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together", rich_help_panel="Question", help="Ask once about all pictures, not once per picture."
        ),
    ] = False,
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = SAMPLING.max_new_tokens,
    temperature: options.Temperature = SAMPLING.temperature,
    top_p: options.TopP = SAMPLING.top_p,
    top_k: options.TopK = SAMPLING.top_k,
    min_p: options.MinP = SAMPLING.min_p,
    repetition_penalty: options.RepetitionPenalty = SAMPLING.repetition_penalty,
    seed: options.Seed = SAMPLING.seed,
    stop: options.Stop = None,
    choices: options.Choices = None,
    yes_no: options.YesNo = False,
    schema: options.Schema = None,
    samples: options.Samples = 1,
    model: options.Model = LOADING.model,
    profile: options.Profile = None,
    revision: options.Revision = LOADING.revision,
    offline: options.Offline = LOADING.offline,
    device: options.Device = LOADING.device,
    dtype: options.DtypeOption = LOADING.dtype,
    attn_implementation: options.AttentionOption = LOADING.attn_implementation,
    device_map: options.DeviceMapOption = LOADING.device_map,
    threads: options.Threads = LOADING.threads,
    quantization: options.QuantizationOption = LOADING.quantization,
    group_size: options.GroupSize = LOADING.group_size,
    include_vision: options.IncludeVision = LOADING.include_vision,
    include_head: options.IncludeHead = LOADING.include_head,
    cache: options.Cache = LOADING.cache,
    force: options.Force = LOADING.force,
    as_json: options.Json = False,
    no_stream: options.NoStream = False,
    stats: options.ShowStats = False,
    plain: options.Plain = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Describe pictures, or answer a question about them.

    Only the answer goes to stdout.

    Several pictures are answered one by one, each under its path. If one fails, its error goes to stderr and the
    others are still answered.
    """
    from dsvl_cli.app.describe import answer_all

    answer_all(
        options.make_console(ctx),
        images,
        options.load_options(ctx.params),
        options.sampling_for_samples(ctx),
        prompt=prompt,
        system=system,
        together=together,
        choices=choices,
        yes_no=yes_no,
        schema=schema,
        samples=samples,
        as_json=as_json,
        stream=not no_stream,
        show_stats=stats,
    )

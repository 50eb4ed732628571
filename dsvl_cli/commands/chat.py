"""`dsvl chat [IMAGE...]`: a conversation about pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from dsvl_cli.commands import options
from dsvl_cli.commands.options import LOADING, SAMPLING
from dsvl_cli.engine.options import DEFAULT_OVERFLOW, Overflow

_CONVERSATION = "Conversation"

# Typer joins the lines of a paragraph: an empty line keeps two apart.
HELP_EPILOG = """
[bold]Examples[/bold]

[dim]Begin with two pictures; `tiny` comes with dsvl: a toy that knows drawn shapes and numbers.[/dim]

dsvl chat a.png b.png --model tiny

[dim]Go on with the last conversation, or with one that was given a name.[/dim]

dsvl chat --continue

dsvl chat --session holiday

[dim]A script: every line is a message, commands included.[/dim]

printf '/image a.png\\nWhat is it?\\n' | dsvl chat --model tiny --no-save

[dim]In the chat: drop a picture's path into the line, /help for everything else, Ctrl-C stops an answer.[/dim]
"""


def chat(
    ctx: typer.Context,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE]...",
            autocompletion=options.complete_picture,
            show_default=False,
            help="Pictures for the first message: paths, globs, http(s) addresses.",
        ),
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option("--continue", "-c", rich_help_panel=_CONVERSATION, help="Go on with the last conversation."),
    ] = False,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="ID|NAME",
            rich_help_panel=_CONVERSATION,
            help="Go on with this one; see dsvl sessions list.",
        ),
    ] = None,
    no_save: Annotated[
        bool,
        typer.Option(
            "--no-save",
            envvar="DSVL_NO_SAVE",
            show_envvar=False,
            rich_help_panel=_CONVERSATION,
            help="Keep nothing on disk, --cache or not.",
        ),
    ] = False,
    overflow: Annotated[
        Overflow,
        typer.Option(
            "--overflow",
            envvar="DSVL_OVERFLOW",
            show_envvar=False,
            rich_help_panel=_CONVERSATION,
            help="When the context is full: say so, or leave the oldest turns out.",
        ),
    ] = DEFAULT_OVERFLOW,
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = SAMPLING.max_new_tokens,
    temperature: options.Temperature = SAMPLING.temperature,
    top_p: options.TopP = SAMPLING.top_p,
    top_k: options.TopK = SAMPLING.top_k,
    min_p: options.MinP = SAMPLING.min_p,
    repetition_penalty: options.RepetitionPenalty = SAMPLING.repetition_penalty,
    seed: options.Seed = SAMPLING.seed,
    stop: options.Stop = None,
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
    plain: options.Plain = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> int:
    """Talk about pictures; the conversation is kept.

    The prompt is there at once and the model loads behind it. Pictures can come at any time, several of them.
    """
    from dsvl_cli.app.chat import run_chat

    return run_chat(
        options.make_console(ctx.params),
        images or [],
        options.load_options(ctx.params),
        options.sampling_params(ctx.params),
        overflow=overflow,
        system=system,
        go_on=go_on,
        session=session,
        save=not no_save,
        as_json=as_json,
        aliases=options.read_aliases(ctx),
    )

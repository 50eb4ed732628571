"""`dsvl chat [IMAGE...]`: a conversation about pictures."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dsvl_cli.commands import options
from dsvl_cli.engine.options import DEFAULT_GROUP_SIZE, DEFAULT_MODEL

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
        Literal["error", "drop-oldest"],
        typer.Option(
            "--overflow",
            envvar="DSVL_OVERFLOW",
            show_envvar=False,
            rich_help_panel=_CONVERSATION,
            help="When the context is full: say so, or leave the oldest turns out.",
        ),
    ] = "error",
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = 512,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    seed: options.Seed = None,
    stop: options.Stop = None,
    model: options.Model = DEFAULT_MODEL,
    profile: options.Profile = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
    device: options.Device = "auto",
    dtype: options.DtypeOption = "auto",
    attn_implementation: options.AttentionOption = "auto",
    device_map: options.DeviceMap = None,
    threads: options.Threads = None,
    quantization: options.QuantizationOption = None,
    group_size: options.GroupSize = DEFAULT_GROUP_SIZE,
    include_vision: options.IncludeVision = False,
    include_head: options.IncludeHead = False,
    cache: options.Cache = False,
    force: options.Force = False,
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
    from dsvl_cli.terminal.chat.settings import ChatSettings

    return run_chat(
        options.make_console(ctx.params),
        images or [],
        options.load_options(ctx.params),
        ChatSettings(options.sampling_params(ctx.params), overflow),
        system=system,
        go_on=go_on,
        session=session,
        save=not no_save,
        as_json=as_json,
        aliases=options.read_aliases(ctx),
    )

"""`dsvl chat [IMAGE...]`: a conversation about pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from dsvl_cli.commands import options
from dsvl_cli.commands.options import LOADING, SAMPLING
from dsvl_cli.engine.options import DEFAULT_OVERFLOW, Overflow

_CONVERSATION = "Conversation"

HELP_EPILOG = """
# Start with two pictures. `tiny` is built in: a toy model that knows drawn shapes and numbers.
$ dsvl chat a.png b.png --model tiny

# Continue the last conversation, or one by its name.
$ dsvl chat --continue
$ dsvl chat --session holiday

# Begin with a question.
$ dsvl chat a.png b.png --model tiny -p "How do they differ?"

# Run a script: each line is a message or a command.
$ printf '/image a.png\\nWhat is it?\\n' | dsvl chat --model tiny --no-save

In the chat: drop a picture onto the prompt to attach it, Ctrl-C stops an answer, /help shows the rest.
"""


def chat(
    ctx: typer.Context,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE...",
            autocompletion=options.complete_picture,
            show_default=False,
            help="Pictures for the first message: paths, globs, URLs (http, file, data).",
        ),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            callback=options.check_text,
            rich_help_panel=_CONVERSATION,
            show_default=False,
            help="Start with this question about the pictures.",
        ),
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option(
            "--continue",
            "-c",
            rich_help_panel=_CONVERSATION,
            help="Continue the last conversation, with its model and settings.",
        ),
    ] = False,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="SESSION",
            rich_help_panel=_CONVERSATION,
            help="Continue this conversation, by its id or name; see dsvl sessions list.",
        ),
    ] = None,
    no_save: Annotated[
        bool,
        typer.Option(
            "--no-save",
            envvar="DSVL_NO_SAVE",
            show_envvar=False,
            rich_help_panel=_CONVERSATION,
            help="Save nothing to disk, not even with --cache.",
        ),
    ] = False,
    overflow: Annotated[
        Overflow,
        typer.Option(
            "--overflow",
            envvar="DSVL_OVERFLOW",
            show_envvar=False,
            rich_help_panel=_CONVERSATION,
            help="When the context is full: stop with an error, or drop the oldest turns.",
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
    """Chat about pictures; the conversation is saved.

    You can type at once: the model loads in the background. Attach one or more pictures to any message.
    """
    from dsvl_cli.app.chat import run_chat

    return run_chat(
        options.make_console(ctx),
        images or [],
        options.load_options(ctx.params),
        options.sampling_params(ctx.params),
        overflow=overflow,
        system=system,
        question=question,
        go_on=go_on,
        session=session,
        save=not no_save,
        as_json=as_json,
        aliases=options.read_aliases(ctx),
        given=options.chosen(ctx),
    )

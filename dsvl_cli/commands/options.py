"""Every option that more than one command has, declared once, and what they add up to.

A value comes from the flag, else from the environment variable `DSVL_<NAME>`, else from the files of `dsvl_cli.config`,
else it is the command's default.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dsvl_cli.config import Config, read_config
from dsvl_cli.engine.options import Attention, Dtype, LoadOptions, Quantization, SamplingParams
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.console import Console, Environment

_MODEL, _SAMPLING, _OUTPUT = "Model", "Answer", "Output"


def complete_model(incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the aliases, the user's own first."""
    from dsvl_cli.engine.checkpoint import ALIASES

    aliases = {**_read_config_quietly().aliases}
    aliases.update((alias, target) for alias, target in ALIASES.items() if alias not in aliases)
    return ((alias, target) for alias, target in aliases.items() if alias.startswith(incomplete))


def complete_profile(incomplete: str) -> list[str]:
    """Offer the profiles of config.toml."""
    return [name for name in _read_config_quietly().profiles if name.startswith(incomplete)]


def _read_config_quietly() -> Config:
    """Read the files for completion, which has no place for an error."""
    with suppress(DsvlError):
        return read_config(os.environ)
    return Config()


def complete_device(incomplete: str) -> list[str]:
    """Offer the kinds of device."""
    return [name for name in ("auto", "cpu", "cuda", "cuda:0", "mps", "xpu") if name.startswith(incomplete)]


def complete_picture(incomplete: str) -> list[str]:
    """Offer pictures, and folders that may hold some."""
    from dsvl_cli.engine.images import PICTURE_EXTENSIONS

    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") or not incomplete else typed.parent
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    offered = [
        f"{entry}/" if entry.is_dir() else str(entry)
        for entry in entries
        if not entry.name.startswith(".") and (entry.is_dir() or entry.suffix.lower() in PICTURE_EXTENSIONS)
    ]
    return [name for name in offered if name.startswith(incomplete)]


def _use_config(ctx: typer.Context, profile: str | None) -> str | None:
    """Make what the files say the defaults of this command. `--help` comes before, and completion needs none."""
    if not ctx.resilient_parsing:
        config = read_config(os.environ, profile)
        ctx.obj = config
        ctx.default_map = {name: found.value for name, found in config.values.items()}
    return profile


def _resolve_alias(ctx: typer.Context, model: str) -> str:
    config = ctx.find_object(Config)
    return model if config is None else config.resolve_model(model)


# Eager, so that the defaults are known before any other option is looked at.
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", envvar="DSVL_PROFILE", show_envvar=False, is_eager=True, callback=_use_config,
        autocompletion=complete_profile, metavar="NAME", rich_help_panel=_MODEL,
        help="A group of settings out of config.toml.",
    ),
]  # fmt: skip
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", envvar="DSVL_MODEL", show_envvar=False, callback=_resolve_alias, autocompletion=complete_model,
        metavar="NAME|ID|FOLDER", rich_help_panel=_MODEL,
        help="tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny comes with dsvl.",
    ),
]  # fmt: skip
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision", envvar="DSVL_REVISION", show_envvar=False, metavar="REV", rich_help_panel=_MODEL,
        help="Branch, tag or commit of the model on the hub.",
    ),
]  # fmt: skip
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", envvar="DSVL_OFFLINE", show_envvar=False, rich_help_panel=_MODEL, help="Never open a connection."
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", envvar="DSVL_DEVICE", show_envvar=False, autocompletion=complete_device, metavar="auto|cpu|cuda[:N]|mps|xpu",
        rich_help_panel=_MODEL, help="Where to compute.",
    ),
]  # fmt: skip
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        envvar="DSVL_DTYPE",
        show_envvar=False,
        rich_help_panel=_MODEL,
        help="Number format; auto takes a fast one.",
    ),
]
AttentionOption = Annotated[
    Attention,
    typer.Option(
        "--attn-implementation", "--attn", envvar="DSVL_ATTN_IMPLEMENTATION", show_envvar=False, rich_help_panel=_MODEL,
        help="Attention backend.",
    ),
]  # fmt: skip
DeviceMap = Annotated[
    Literal["auto"] | None,
    typer.Option(
        "--device-map",
        envvar="DSVL_DEVICE_MAP",
        show_envvar=False,
        rich_help_panel=_MODEL,
        help="auto: spread over several GPUs.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        envvar="DSVL_THREADS",
        show_envvar=False,
        min=1,
        metavar="N",
        rich_help_panel=_MODEL,
        help="CPU threads.",
    ),
]
QuantizationOption = Annotated[
    Quantization | None,
    typer.Option(
        "--quantization", envvar="DSVL_QUANTIZATION", show_envvar=False, rich_help_panel=_MODEL,
        help="Quantize while loading; 4bit and 8bit take the best format of that width.",
    ),
]  # fmt: skip
GroupSize = Annotated[
    int,
    typer.Option(
        "--group-size", envvar="DSVL_GROUP_SIZE", show_envvar=False, metavar="N", rich_help_panel=_MODEL,
        help="Weights that share a scale in torchao-int4: 32, 64, 128 or 256.",
    ),
]  # fmt: skip
IncludeVision = Annotated[
    bool,
    typer.Option("--include-vision", rich_help_panel=_MODEL, help="Quantize the vision towers too; not advised."),
]
IncludeHead = Annotated[
    bool,
    typer.Option("--include-head", rich_help_panel=_MODEL, help="Quantize the output head too; not advised."),
]
Force = Annotated[
    bool,
    typer.Option("--force", rich_help_panel=_MODEL, help="Load even if the memory will probably not do."),
]

System = Annotated[
    str | None,
    typer.Option(
        "--system", "-s", envvar="DSVL_SYSTEM", show_envvar=False, metavar="TEXT", rich_help_panel=_SAMPLING,
        help="Replaces the model's default system text, as DeepSeek's own code does; '' leaves it out.",
    ),
]  # fmt: skip
MaxNewTokens = Annotated[
    int,
    typer.Option(
        "--max-new-tokens", "--max-tokens", envvar="DSVL_MAX_NEW_TOKENS", show_envvar=False, min=1, metavar="N",
        rich_help_panel=_SAMPLING, help="Longest answer.",
    ),
]  # fmt: skip
Temperature = Annotated[
    float,
    typer.Option(
        "--temperature", "--temp", envvar="DSVL_TEMPERATURE", show_envvar=False, min=0.0, metavar="T", rich_help_panel=_SAMPLING,
        help="0 always takes the likeliest token; higher is more varied.",
    ),
]  # fmt: skip
TopP = Annotated[
    float,
    typer.Option(
        "--top-p", envvar="DSVL_TOP_P", show_envvar=False, metavar="P", rich_help_panel=_SAMPLING,
        help="Sample among the likeliest tokens that sum to P.",
    ),
]  # fmt: skip
TopK = Annotated[
    int,
    typer.Option(
        "--top-k", envvar="DSVL_TOP_K", show_envvar=False, min=0, metavar="K", rich_help_panel=_SAMPLING,
        help="Sample among the K likeliest tokens; 0 is off.",
    ),
]  # fmt: skip
MinP = Annotated[
    float,
    typer.Option(
        "--min-p", envvar="DSVL_MIN_P", show_envvar=False, metavar="P", rich_help_panel=_SAMPLING,
        help="Drop tokens less than P times as likely as the likeliest.",
    ),
]  # fmt: skip
RepetitionPenalty = Annotated[
    float,
    typer.Option(
        "--repetition-penalty", envvar="DSVL_REPETITION_PENALTY", show_envvar=False, metavar="R", rich_help_panel=_SAMPLING,
        help="Above 1 makes repeating less likely.",
    ),
]  # fmt: skip
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", envvar="DSVL_SEED", show_envvar=False, min=0, metavar="N", rich_help_panel=_SAMPLING,
        help="Makes sampling repeatable.",
    ),
]  # fmt: skip
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop", metavar="TEXT", rich_help_panel=_SAMPLING, help="End the answer before TEXT; may be repeated."
    ),
]

Json = Annotated[bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="One JSON object a line on stdout.")]
NoStream = Annotated[
    bool,
    typer.Option(
        "--no-stream",
        envvar="DSVL_NO_STREAM",
        show_envvar=False,
        rich_help_panel=_OUTPUT,
        help="Print an answer when it is whole.",
    ),
]
ShowStats = Annotated[
    bool,
    typer.Option(
        "--stats",
        envvar="DSVL_STATS",
        show_envvar=False,
        rich_help_panel=_OUTPUT,
        help="Tokens, seconds and memory on stderr.",
    ),
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain", envvar="DSVL_PLAIN", show_envvar=False, rich_help_panel=_OUTPUT,
        help="No colour, no redrawing: for screen readers and logs.",
    ),
]  # fmt: skip
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", envvar="DSVL_QUIET", show_envvar=False, rich_help_panel=_OUTPUT, help="No status messages."
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", envvar="DSVL_VERBOSE", show_envvar=False, rich_help_panel=_OUTPUT,
        help="Say what was chosen (device, dtype, attention) and why.",
    ),
]  # fmt: skip
Debug = Annotated[bool, typer.Option("--debug", rich_help_panel=_OUTPUT, help="Show the traceback of an error.")]


def load_options(values: Mapping[str, Any]) -> LoadOptions:
    """Put the flags about loading together, out of all the values of a command; what it lacks keeps its default."""
    return LoadOptions(**{field.name: values[field.name] for field in fields(LoadOptions) if field.name in values})


def sampling_params(values: Mapping[str, Any]) -> SamplingParams:
    """Put the flags about sampling together, out of all the values of a command.

    A seed is drawn where none is given, so that it can be told and the answer repeated.

    Raises:
        UsageError: a value is out of its bounds.
    """
    params = {field.name: values[field.name] for field in fields(SamplingParams)}
    params["stop"] = tuple(params["stop"] or ())
    if params["seed"] is None and params["temperature"] > 0:
        params["seed"] = secrets.randbelow(2**31)
    return SamplingParams(**params)


def make_console(values: Mapping[str, Any]) -> Console:
    """Make the console that the flags about output ask for."""
    return Console(Environment.system(), verbose=values["verbose"], quiet=values["quiet"], plain=values["plain"])

"""Every option that more than one command has, declared once, and what they add up to.

A value comes from the flag, else from the environment variable `DSVL_<NAME>`, else from the files of `dsvl_cli.config`,
else it is the command's default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from dsvl_cli.config import Config, read_config
from dsvl_cli.engine.options import (
    DEVICES,
    RULES,
    Attention,
    DeviceMap,
    Dtype,
    LoadOptions,
    Quantization,
    SamplingParams,
    draw_seed,
)
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.console import Console, Environment

LOADING, SAMPLING = LoadOptions(), SamplingParams()  # the defaults of the options
_MODEL, _SAMPLING, _OUTPUT = "Model", "Answer", "Output"


def complete_model(incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the aliases, the user's own first."""
    from dsvl_cli.engine.checkpoint.find import ALIASES

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
    names = sorted([*map(str, DEVICES.offered), *(f"{name}:0" for name in DEVICES.numbered)])
    return [name for name in names if name.startswith(incomplete)]


def complete_picture(incomplete: str) -> list[str]:
    """Offer pictures, and folders that may hold some."""
    from dsvl_cli.engine.pictures.images import PICTURE_EXTENSIONS

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


def resolve_alias(ctx: typer.Context, model: str) -> str:
    """Take what one of the user's own names stands for, and any other name as it is."""
    config = ctx.find_object(Config)
    return model if config is None else config.resolve_model(model)


def read_aliases(ctx: typer.Context) -> Mapping[str, str]:
    """Give the user's own names for models, in small letters, with what they stand for."""
    config = ctx.find_object(Config)
    return {} if config is None else config.aliases


def _setting(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002
    """Declare an option that `DSVL_<NAME>` sets too, NAME being its first long name.

    Bounds are shown here; the options that the values become refuse what is out of them.
    """
    name = next(name for name in names if name.startswith("--")).removeprefix("--").replace("-", "_")
    rule = RULES.get(name)
    if rule is not None and rule.kind in (int, float):
        help = f"{help.removesuffix('.')} ({rule.limits})."  # noqa: A001
    variable = f"DSVL_{name.upper()}"
    return typer.Option(*names, envvar=variable, show_envvar=False, rich_help_panel=panel, help=help, **more)


def _flag(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002
    """Declare an option that belongs to one command line and cannot be set elsewhere."""
    return typer.Option(*names, rich_help_panel=panel, help=help, **more)


_DEVICE_METAVAR = "|".join(f"{name}[:N]" if name in DEVICES.numbered else str(name) for name in DEVICES.offered)

# Eager, so that the defaults are known before any other option is looked at.
Profile = Annotated[
    str | None,
    _setting(
        _MODEL, "--profile", metavar="NAME", help="A group of settings out of config.toml.",
        is_eager=True, callback=_use_config, autocompletion=complete_profile,
    ),
]  # fmt: skip
Model = Annotated[
    str,
    _setting(
        _MODEL, "--model", "-m", metavar="NAME|ID|FOLDER", callback=resolve_alias, autocompletion=complete_model,
        help="tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny comes with dsvl.",
    ),
]  # fmt: skip
Revision = Annotated[
    str | None,
    _setting(_MODEL, "--revision", metavar="REV", help="Branch, tag or commit of the model on the hub."),
]
Offline = Annotated[bool, _setting(_MODEL, "--offline", help="Never open a connection.")]
Device = Annotated[
    str,
    _setting(
        _MODEL, "--device", metavar=_DEVICE_METAVAR, autocompletion=complete_device,
        help="Where to compute.",
    ),
]  # fmt: skip
DtypeOption = Annotated[Dtype, _setting(_MODEL, "--dtype", help="Number format; auto takes a fast one.")]
AttentionOption = Annotated[Attention, _setting(_MODEL, "--attn-implementation", "--attn", help="Attention backend.")]
DeviceMapOption = Annotated[DeviceMap | None, _setting(_MODEL, "--device-map", help="auto: spread over several GPUs.")]
Threads = Annotated[int | None, _setting(_MODEL, "--threads", metavar="N", help="CPU threads.")]
QuantizationOption = Annotated[
    Quantization | None,
    _setting(
        _MODEL, "--quantization", help="Quantize while loading; 4bit and 8bit take the best format of that width."
    ),
]
GroupSize = Annotated[
    int,
    _setting(_MODEL, "--group-size", metavar="N", help="Weights that share a scale in torchao-int4."),
]
IncludeVision = Annotated[bool, _flag(_MODEL, "--include-vision", help="Quantize the vision towers too; not advised.")]
IncludeHead = Annotated[bool, _flag(_MODEL, "--include-head", help="Quantize the output head too; not advised.")]
Cache = Annotated[
    bool,
    _setting(
        _MODEL, "--cache",
        help="Keep the state of pictures and prompts on disk, for you alone to read: asked again, they cost nothing.",
    ),
]  # fmt: skip
Force = Annotated[bool, _flag(_MODEL, "--force", help="Load even if the memory will probably not do.")]

System = Annotated[
    str | None,
    _setting(
        _SAMPLING, "--system", "-s", metavar="TEXT",
        help="Replaces the model's default system text, as DeepSeek's own code does; '' leaves it out.",
    ),
]  # fmt: skip
MaxNewTokens = Annotated[
    int, _setting(_SAMPLING, "--max-new-tokens", "--max-tokens", metavar="N", help="Longest answer.")
]
Temperature = Annotated[
    float,
    _setting(
        _SAMPLING, "--temperature", "--temp", metavar="T",
        help="0 always takes the likeliest token; higher is more varied.",
    ),
]  # fmt: skip
TopP = Annotated[
    float, _setting(_SAMPLING, "--top-p", metavar="P", help="Sample among the likeliest tokens that sum to P.")
]
TopK = Annotated[
    int, _setting(_SAMPLING, "--top-k", metavar="K", help="Sample among the K likeliest tokens; 0 is off.")
]
MinP = Annotated[
    float,
    _setting(_SAMPLING, "--min-p", metavar="P", help="Drop tokens less than P times as likely as the likeliest."),
]
RepetitionPenalty = Annotated[
    float, _setting(_SAMPLING, "--repetition-penalty", metavar="R", help="Above 1 makes repeating less likely.")
]
Seed = Annotated[int | None, _setting(_SAMPLING, "--seed", metavar="N", help="Makes sampling repeatable.")]
Stop = Annotated[
    list[str] | None, _flag(_SAMPLING, "--stop", metavar="TEXT", help="End the answer before TEXT; may be repeated.")
]

Json = Annotated[bool, _flag(_OUTPUT, "--json", help="One JSON object a line on stdout.")]
NoStream = Annotated[bool, _setting(_OUTPUT, "--no-stream", help="Print an answer when it is whole.")]
ShowStats = Annotated[bool, _setting(_OUTPUT, "--stats", help="Tokens, seconds and memory on stderr.")]
Plain = Annotated[bool, _setting(_OUTPUT, "--plain", help="No colour, no redrawing: for screen readers and logs.")]
Quiet = Annotated[bool, _setting(_OUTPUT, "--quiet", "-q", help="No status messages.")]
Verbose = Annotated[
    bool, _setting(_OUTPUT, "--verbose", "-v", help="Say what was chosen (device, dtype, attention) and why.")
]
Debug = Annotated[bool, _flag(_OUTPUT, "--debug", help="Show the traceback of an error.")]


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
        params["seed"] = draw_seed()
    return SamplingParams(**params)


def given(ctx: typer.Context) -> frozenset[str]:
    """The names of the values that stand on the command line, not in the environment or a file."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


def make_console(values: Mapping[str, Any] = MappingProxyType({})) -> Console:
    """Make the console that the flags about output ask for, out of all the values of a command."""
    flags = {name: values.get(name, False) for name in ("verbose", "quiet", "plain")}
    return Console(Environment.system(), **flags)

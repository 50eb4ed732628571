"""The options that several commands share, each declared once, and the objects built from their values.

A value comes from the flag, else the environment variable `DSVL_<NAME>`, else the files of `dsvl_cli.config`, else the
command's default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from dsvl_cli.config import FOLDER_FILE, Config, find_unknown_variables, read_config
from dsvl_cli.engine.encodings import find_undecodable
from dsvl_cli.engine.options import (
    DEVICES,
    OF_A_QUESTION,
    RULES,
    SAMPLES_TEMPERATURE,
    Attention,
    DeviceMap,
    Dtype,
    LoadOptions,
    Quantization,
    SamplingParams,
    check_value,
    draw_seed,
)
from dsvl_cli.errors import DsvlError, SettingError, UsageError
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
    """Read the files for completion, which cannot show an error."""
    with suppress(DsvlError):
        return read_config(os.environ)
    return Config()


def complete_device(incomplete: str) -> list[str]:
    """Offer the device types."""
    names = sorted([*map(str, DEVICES.offered), *(f"{name}:0" for name in DEVICES.numbered)])
    return [name for name in names if name.startswith(incomplete)]


def complete_picture(incomplete: str) -> list[str]:
    """Offer pictures, and folders, which may contain some."""
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
    """Make the settings in files the defaults of this command; `--help` and completion never get here."""
    if not ctx.resilient_parsing:
        config = read_config(os.environ, profile, command=ctx.info_name)
        ctx.obj = config
        ctx.default_map = {name: found.value for name, found in config.values.items()}
    return profile


def check_text(param: typer.CallbackParam, value: Any) -> Any:
    """Refuse an option whose text for the model is not UTF-8: the system passes its bytes on as they are.

    Raises:
        UsageError: names the option, for which the command puts the variable if that is where the text is from.
    """
    for text in [value] if isinstance(value, str) else value or ():
        if (found := find_undecodable(text)) is not None:
            raise UsageError(f"{param.opts[0]} is not UTF-8: {found}", "type it in a terminal that uses UTF-8")
    return value


def resolve_alias(ctx: typer.Context, model: str) -> str:
    """Return the model that the user's alias stands for, and any other name unchanged."""
    config = ctx.find_object(Config)
    return model if config is None else config.resolve_model(model)


def read_aliases(ctx: typer.Context) -> Mapping[str, str]:
    """Return the user's model aliases, in lower case, with what they stand for."""
    config = ctx.find_object(Config)
    return {} if config is None else config.aliases


def read_own_aliases() -> Mapping[str, str]:
    """Return the user's model aliases for a command without a profile.

    Raises:
        DsvlError: a file with settings is wrong.
    """
    return read_config(os.environ).aliases


def _setting(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002
    """Declare an option that `DSVL_<NAME>` sets too, where NAME is its first long name.

    Bounds are only shown here; `LoadOptions` and `SamplingParams` enforce them.
    """
    name = next(name for name in names if name.startswith("--")).removeprefix("--").replace("-", "_")
    rule = RULES.get(name)
    if rule is not None and rule.kind in (int, float):
        help = f"{help.removesuffix('.')} ({rule.limits})."  # noqa: A001
    variable = f"DSVL_{name.upper()}"
    return typer.Option(*names, envvar=variable, show_envvar=False, rich_help_panel=panel, help=help, **more)


def _flag(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002
    """Declare an option that can only be set on the command line."""
    return typer.Option(*names, rich_help_panel=panel, help=help, **more)


_DEVICE_METAVAR = "|".join(f"{name}[:N]" if name in DEVICES.numbered else str(name) for name in DEVICES.offered)

# Eager, so that the defaults are known before the other options are processed.
Profile = Annotated[
    str | None,
    _setting(
        _MODEL, "--profile", metavar="NAME", help="A group of settings in config.toml.",
        is_eager=True, callback=_use_config, autocompletion=complete_profile,
    ),
]  # fmt: skip
Model = Annotated[
    str,
    _setting(
        _MODEL, "--model", "-m", metavar="NAME|ID|FOLDER", callback=resolve_alias, autocompletion=complete_model,
        help="tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny is built in.",
    ),
]  # fmt: skip
Revision = Annotated[
    str | None,
    _setting(_MODEL, "--revision", metavar="REV", help="Branch, tag or commit of the model on the Hugging Face Hub."),
]
Offline = Annotated[bool, _setting(_MODEL, "--offline", help="Never use the network.")]
Device = Annotated[
    str,
    _setting(
        _MODEL, "--device", metavar=_DEVICE_METAVAR, autocompletion=complete_device,
        help="Device to run on.",
    ),
]  # fmt: skip
DtypeOption = Annotated[Dtype, _setting(_MODEL, "--dtype", help="Floating-point format; auto picks a fast one.")]
AttentionOption = Annotated[Attention, _setting(_MODEL, "--attn-implementation", "--attn", help="Attention backend.")]
DeviceMapOption = Annotated[
    DeviceMap | None, _setting(_MODEL, "--device-map", help="auto: spread the model over several GPUs.")
]
Threads = Annotated[int | None, _setting(_MODEL, "--threads", metavar="N", help="CPU threads.")]
QuantizationOption = Annotated[
    Quantization | None,
    _setting(
        _MODEL, "--quantization", help="Quantize while loading; 4bit and 8bit pick the best format of that width."
    ),
]
GroupSize = Annotated[
    int,
    _setting(_MODEL, "--group-size", metavar="N", help="Weights per scale in torchao-int4."),
]
IncludeVision = Annotated[
    bool, _flag(_MODEL, "--include-vision", help="Quantize the vision encoders too; not recommended.")
]
IncludeHead = Annotated[bool, _flag(_MODEL, "--include-head", help="Quantize the output head too; not recommended.")]
Cache = Annotated[
    bool,
    _setting(
        _MODEL, "--cache",
        help="Cache processed pictures and prompts on disk, readable only by you, so asking again is fast.",
    ),
]  # fmt: skip
Force = Annotated[bool, _flag(_MODEL, "--force", help="Load even if memory is likely to run out.")]

System = Annotated[
    str | None,
    _setting(
        _SAMPLING, "--system", "-s", metavar="TEXT", callback=check_text,
        help="System prompt, in place of the model's default; '' for none.",
    ),
]  # fmt: skip
MaxNewTokens = Annotated[
    int, _setting(_SAMPLING, "--max-new-tokens", "--max-tokens", metavar="N", help="Maximum length of an answer.")
]
Temperature = Annotated[
    float,
    _setting(
        _SAMPLING, "--temperature", "--temp", metavar="T",
        help="0 always picks the most likely token; higher values vary more.",
    ),
]  # fmt: skip
TopP = Annotated[
    float,
    _setting(
        _SAMPLING, "--top-p", metavar="P", help="Sample from the most likely tokens whose probabilities sum to P."
    ),
]
TopK = Annotated[
    int, _setting(_SAMPLING, "--top-k", metavar="K", help="Sample from the K most likely tokens; 0 is off.")
]
MinP = Annotated[
    float,
    _setting(_SAMPLING, "--min-p", metavar="P", help="Drop tokens less than P times as likely as the most likely one."),
]
RepetitionPenalty = Annotated[
    float, _setting(_SAMPLING, "--repetition-penalty", metavar="R", help="Values above 1 make repetition less likely.")
]
Seed = Annotated[int | None, _setting(_SAMPLING, "--seed", metavar="N", help="Seed for reproducible sampling.")]
Stop = Annotated[
    list[str] | None,
    _flag(
        _SAMPLING, "--stop", metavar="TEXT", callback=check_text, help="End the answer before TEXT; may be repeated."
    ),
]
Choices = Annotated[
    str | None,
    _flag(
        _SAMPLING, "--choices", metavar="LIST", show_default=False,
        help="Answer with one of LIST, such as Red,Green,Blue or a file of one a line, and its probability.",
    ),
]  # fmt: skip
YesNo = Annotated[bool, _flag(_SAMPLING, "--yes-no", help="Answer with Yes or No, and its probability.")]
Schema = Annotated[
    str | None,
    _flag(
        _SAMPLING, "--schema", metavar="SCHEMA", show_default=False,
        help="Answer in JSON: a JSON Schema, its file, or 'colour, count int, items list: what is seen'.",
    ),
]  # fmt: skip

Samples = Annotated[
    int,
    _setting(
        _SAMPLING, "--samples", metavar="N",
        help=f"Say how far answers disagree, at a temperature of {SAMPLES_TEMPERATURE} unless you set one: "
        "answer N times.",
    ),
]  # fmt: skip

Json = Annotated[bool, _flag(_OUTPUT, "--json", help="Print one JSON object per line.")]
NoStream = Annotated[bool, _setting(_OUTPUT, "--no-stream", help="Print each answer only when it is complete.")]
ShowStats = Annotated[bool, _setting(_OUTPUT, "--stats", help="Print tokens, times and memory to stderr.")]
Plain = Annotated[bool, _setting(_OUTPUT, "--plain", help="No colour and no redrawing, for screen readers and logs.")]
Quiet = Annotated[bool, _setting(_OUTPUT, "--quiet", "-q", help="No status messages.")]
Verbose = Annotated[
    bool, _setting(_OUTPUT, "--verbose", "-v", help="Show what was chosen (device, dtype, attention), and why.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal.")]
Debug = Annotated[bool, _flag(_OUTPUT, "--debug", help="Show the traceback of an error.")]


def load_options(values: Mapping[str, Any]) -> LoadOptions:
    """Build the loading options from a command's values; those it lacks keep their defaults."""
    return LoadOptions(**{field.name: values[field.name] for field in fields(LoadOptions) if field.name in values})


def sampling_params(values: Mapping[str, Any]) -> SamplingParams:
    """Build the sampling parameters from a command's values.

    If no seed is given, one is drawn, so that it can be reported and the answer reproduced.

    Raises:
        UsageError: a value is out of bounds.
    """
    params = {field.name: values[field.name] for field in fields(SamplingParams) if field.name not in OF_A_QUESTION}
    params["stop"] = tuple(params["stop"] or ())
    if params["seed"] is None and params["temperature"] > 0:
        params["seed"] = draw_seed()
    return SamplingParams(**params)


def sampling_for_samples(ctx: typer.Context) -> SamplingParams:
    """Build the sampling parameters of a command that has `--samples`, which need a temperature.

    Raises:
        UsageError: a value is out of bounds, or the temperature was set to 0, where all samples are equal.
    """
    values, samples = dict(ctx.params), ctx.params["samples"]
    check_value("samples", samples)
    if samples > 1 and values["temperature"] == 0:
        source = ctx.get_parameter_source("temperature")
        if source is not None and source.name != "DEFAULT":
            raise SettingError(
                "temperature", 0, f"at a temperature of 0 all {samples} samples are equal",
                f"set a temperature above 0, or leave it out for {SAMPLES_TEMPERATURE}", is_whole=True,
            )  # fmt: skip
        values["temperature"] = SAMPLES_TEMPERATURE
    return sampling_params(values)


def given(ctx: typer.Context) -> frozenset[str]:
    """Return the names of the parameters set on the command line, not in the environment or a file."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


def chosen(ctx: typer.Context) -> frozenset[str]:
    """Return the names of the parameters set on the command line, or by a profile that is named there."""
    names = given(ctx)
    config = ctx.find_object(Config)
    if config is None or "profile" not in names:
        return names
    sources = {name: ctx.get_parameter_source(name) for name, value in config.values.items() if value.profile}
    return names.union(name for name, source in sources.items() if source is not None and source.name == "DEFAULT_MAP")


def make_console(ctx: typer.Context | None = None) -> Console:
    """Build the console from a command's values.

    It says which texts a file in the current folder has set, and which variables are probably misspelt.
    """
    values = {} if ctx is None else ctx.params
    flags = {name: values.get(name, False) for name in ("verbose", "quiet", "plain")}
    console = Console(Environment.system(), **flags)
    if ctx is not None and (places := _folder_texts(ctx)):
        console.status(f"{' and '.join(places)} from {FOLDER_FILE} in this folder")
    for name, near in find_unknown_variables(os.environ).items() if ctx is not None else ():
        if near is not None:
            console.status(f"{name} is not used; did you mean {near}?")
    return console


def _folder_texts(ctx: typer.Context) -> list[str]:
    """Return the names of the texts for the model that `.dsvl.toml` sets: it may come with someone else's pictures."""
    config = ctx.find_object(Config)
    values = {} if config is None else config.values
    return [
        words
        for name, words in (("system", "system prompt"), ("prompt", "prompt"))
        if name in values
        and values[name].is_of_folder
        and (source := ctx.get_parameter_source(name)) is not None
        and source.name == "DEFAULT_MAP"
    ]

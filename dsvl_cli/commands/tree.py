"""The commands of `dsvl` as data, to generate completion scripts and the pages of docs/ from.

What an option completes comes from its declaration: fixed values from its choices or its `autocompletion`, and paths
from its metavar (see `_PATHS`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_PATHS = {"IMAGE": "pictures", "FILE": "files", "PATH": "files", "FOLDER": "folders", "SESSION": "sessions"}


@dataclass(frozen=True, slots=True)
class Value:
    """The values of an option or argument: fixed words, each with a description, and paths (`_PATHS`).

    `label` is the metavar. The scripts refer to a value by its name, which only equal values share.
    """

    name: str
    label: str = field(compare=False)
    words: tuple[tuple[str, str], ...]
    paths: str


@dataclass(frozen=True, slots=True)
class Option:
    """An option.

    Attributes:
        names: long names first.
        help: the first paragraph of its help.
        value: None for a flag.
        metavar: its value as shown in help; empty for a flag.
        default: as it would be typed; empty if not worth showing.
        variable: the environment variable that also sets it; empty if none.
        panel: its group in help; empty for the first one.
    """

    names: tuple[str, ...]
    help: str
    value: Value | None
    repeatable: bool
    metavar: str
    default: str
    variable: str
    panel: str


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument; if `variadic`, it may be repeated."""

    value: Value
    help: str
    required: bool
    variadic: bool

    @property
    def usage(self) -> str:
        """Its metavar, in brackets if it is optional."""
        shown = self.value.label + "..." * self.variadic
        return shown if self.required else f"[{shown}]"


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        path: all its words, including `dsvl`.
        children: the name and description of each subcommand.
        help: its full help, with empty lines between paragraphs.
        epilog: the text after the options: examples, whose lines begin with `$`, comments on them with `#`, and prose.
    """

    path: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    children: tuple[tuple[str, str], ...]
    help: str
    epilog: str

    def places(self) -> Iterator[tuple[str, Value]]:
        """Yield each argument's position, from `1`, or `*` if it may be repeated, and its value."""
        for number, argument in enumerate(self.arguments, 1):
            yield "*" if argument.variadic else str(number), argument.value


def read_commands(command: Any, name: str = "dsvl", parent: Any = None) -> Iterator[Command]:
    """Yield a Typer command and all its subcommands."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    shown = [parameter for parameter in command.get_params(context) if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    children = {key: child for key, child in getattr(command, "commands", {}).items() if not child.hidden}
    yield Command(
        name if parent is None else f"{parent.command_path} {name}",
        tuple(_read_option(parameter, context) for parameter in shown if parameter not in arguments),
        tuple(
            Argument(_read_value(found, context), _first_paragraph(found.help), found.required, found.nargs == -1)
            for found in arguments
        ),
        tuple((key, _first_paragraph(child.help)) for key, child in children.items()),
        command.help or "",
        command.epilog or "",
    )
    for key, child in children.items():
        yield from read_commands(child, key, context)


def _read_option(parameter: Any, context: Any) -> Option:
    names = sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: not name.startswith("--"))
    value = None if parameter.is_flag or parameter.count else _read_value(parameter, context)
    words = "" if value is None else "|".join(word for word, _ in value.words) or value.label
    shown = parameter.show_default and parameter.default not in (None, "", (), []) and parameter.default is not False
    return Option(
        tuple(names),
        _first_paragraph(parameter.help),
        value,
        repeatable=parameter.multiple or bool(parameter.count),
        metavar=words and (parameter.metavar or words),
        default=str(parameter.default) if shown else "",
        variable=parameter.envvar or "",
        panel=getattr(parameter, "rich_help_panel", None) or "",
    )


def _read_value(parameter: Any, context: Any) -> Value:
    label = (parameter.metavar or parameter.name.upper()).replace("...", "")
    if label.startswith("[") and label.endswith("]"):
        label = label[1:-1]
    paths = next((_PATHS[part] for part in label.split("|") if part in _PATHS), "")
    # In an empty folder, only the fixed words are offered.
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        items = parameter.shell_complete(context, "")
    words = tuple((item.value, item.help or "") for item in items if item.type == "plain")
    return Value("_".join([parameter.name] * bool(words) + [paths] * bool(paths)) or "text", label, words, paths)


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())

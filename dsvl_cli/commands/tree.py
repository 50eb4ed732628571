"""The commands of `dsvl` as data, for what is generated from them: completion scripts and the pages of docs/.

What an option completes comes from its declaration: fixed values from its choices or its `autocompletion`, and paths
from its metavar (see `_PATHS`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_PATHS = {"IMAGE": "pictures", "FILE": "files", "PATH": "files", "FOLDER": "folders"}


@dataclass(frozen=True, slots=True)
class Value:
    """What may stand in one place: fixed words, each with a description, and paths (`_PATHS`); `label` is the metavar.

    The scripts know a value by its name, which only equal values share.
    """

    name: str
    label: str = field(compare=False)
    words: tuple[tuple[str, str], ...]
    paths: str


@dataclass(frozen=True, slots=True)
class Option:
    """An option.

    Attributes:
        names: the long ones first.
        help: its first paragraph.
        value: None for a flag.
        metavar: its value as help shows it; empty for a flag.
        default: as it would be typed; empty if there is none worth showing.
        variable: the environment variable that sets it too; empty if there is none.
        panel: the group in which help shows it; empty for the first one.
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
        """Its metavar, in brackets if it can be left out."""
        shown = self.value.label + "..." * self.variadic
        return shown if self.required else f"[{shown}]"


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        path: all its words, `dsvl` among them.
        children: the name and the description of each command below it.
        help: all of its help, paragraphs divided by empty lines.
        epilog: what follows the options in its help, with rich markup.
    """

    path: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    children: tuple[tuple[str, str], ...]
    help: str
    epilog: str

    def places(self) -> Iterator[tuple[str, Value]]:
        """Yield the place of each argument, from `1` on and `*` for one that may be repeated, and its value."""
        for number, argument in enumerate(self.arguments, 1):
            yield "*" if argument.variadic else str(number), argument.value


def read_commands(command: Any, name: str = "dsvl", parent: Any = None) -> Iterator[Command]:
    """Yield a command of Typer and all below it."""
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
    # In an empty folder nothing is offered but what is always there.
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        items = parameter.shell_complete(context, "")
    words = tuple((item.value, item.help or "") for item in items if item.type == "plain")
    return Value("_".join([parameter.name] * bool(words) + [paths] * bool(paths)) or "text", label, words, paths)


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())

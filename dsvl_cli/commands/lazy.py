"""Commands that are imported when one of them is run, not when their names are listed.

Typer builds the options of all commands up front, which would take half the time of `dsvl --help` and completion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


class LazyCommands(Mapping[str, TyperCommand | TyperGroup]):
    """Commands by name, each built on first access.

    Args:
        places: where each command is defined, as `module:attribute`, by name. The attribute is a function, whose module
            may have the epilog of its help as `HELP_EPILOG`, or a `typer.Typer` with subcommands.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            place, _, attribute = self._places[name].partition(":")
            module = import_module(place)
            app = target = getattr(module, attribute)
            if not isinstance(target, typer.Typer):
                app = typer.Typer(add_completion=False, rich_markup_mode="rich")
                app.command(epilog=getattr(module, "HELP_EPILOG", None))(target)
            self._built[name] = typer.main.get_command(app)
            self._built[name].name = name
            _simplify_help(self._built[name])
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class LazyGroup(TyperGroup):
    """A base class of groups with lazy commands.

    Attributes:
        listed: by name, the first line of a command's help, and its place as in `LazyCommands`. The list of commands
            is made from these lines alone.
    """

    listed: ClassVar[Mapping[str, tuple[str, str]]]

    def __init__(self, **attributes: Any) -> None:
        commands = LazyCommands({name: place for name, (_, place) in self.listed.items()})
        super().__init__(**{**attributes, "commands": commands})

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, simplified for the help."""
        return [_simplify_parameter(parameter) for parameter in super().get_params(ctx)]

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the names, in the order of the help."""
        return list(self.listed)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]
        """Return a placeholder for the command, enough to list it."""
        return TyperCommand(cmd_name, help=self.listed[cmd_name][0]) if cmd_name in self.listed else None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Return the command to run."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and self.commands[command.name or ""], rest


def _simplify_help(command: Any) -> None:
    """Simplify the parameters in the help of a command and its subcommands; let the help's paragraphs wrap freely."""
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n"))
    read_params = command.get_params
    command.get_params = lambda ctx: [_simplify_parameter(parameter) for parameter in read_params(ctx)]
    for child in getattr(command, "commands", {}).values():
        _simplify_help(child)


def _simplify_parameter(parameter: Any) -> Any:
    """Show `IMAGE...` instead of `{IMAGE...}...` in the usage, `a | b` for `<a|b>`, and no types such as `<bool>`."""
    if parameter.param_type_name == "argument":
        shown = parameter.metavar if parameter.required else f"[{parameter.metavar}]"
        parameter.get_usage_pieces = lambda *_, **__: [shown]
    if parameter.param_type_name == "argument" or parameter.is_flag:
        parameter.display_type_rich = lambda *_, **__: None
    elif parameter.metavar is None:
        parameter.display_type_rich = lambda ctx: parameter.display_type(ctx).strip("<>").replace("|", " | ")
    return parameter

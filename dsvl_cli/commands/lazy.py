"""Commands that are imported when one of them is run, not when their names are listed.

Typer builds the options of all commands up front, which would take half the time of `dsvl --help` and completion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from dsvl_cli.commands.base import Command, Commands, Group


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
                app = Commands()
                app.command(epilog=getattr(module, "HELP_EPILOG", None))(target)
            self._built[name] = typer.main.get_command(app)
            self._built[name].name = name
            _join_lines(self._built[name])
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class LazyGroup(Group):
    """A base class of groups with lazy commands.

    Attributes:
        listed: by name, the first line of a command's help, and its place as in `LazyCommands`. The list of commands
            is made from these lines alone.
    """

    listed: ClassVar[Mapping[str, tuple[str, str]]]

    def __init__(self, **attributes: Any) -> None:
        commands = LazyCommands({name: place for name, (_, place) in self.listed.items()})
        super().__init__(**{**attributes, "commands": commands})

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the names, in the order of the help."""
        return list(self.listed)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]
        """Return a placeholder for the command, enough to list it."""
        return Command(cmd_name, help=self.listed[cmd_name][0]) if cmd_name in self.listed else None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Return the command to run."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and self.commands[command.name or ""], rest


def _join_lines(command: Any) -> None:
    """Let the paragraphs of a command's help, and of its subcommands', wrap freely."""
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n"))
    for child in getattr(command, "commands", {}).values():
        _join_lines(child)

"""Commands that are imported when one of them is run, not when their names are shown.

Typer builds the options of all commands before it does anything: half of what `dsvl --help` and completion would take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


class LazyCommands(Mapping[str, TyperCommand | TyperGroup]):
    """Commands by name, each built when it is asked for.

    Args:
        places: by name, where a command stands, as `module:attribute`: a function, with the epilog of its help beside
            it as `HELP_EPILOG`; or a `typer.Typer` that has commands of its own.
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
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class LazyGroup(TyperGroup):
    """A group to derive from.

    Attributes:
        listed: by name, a line of help, and the place of the command as `LazyCommands` takes it. The line is the first
            of the command's own help; a list of the commands is made from nothing else.
    """

    listed: ClassVar[Mapping[str, tuple[str, str]]]

    def __init__(self, **attributes: Any) -> None:
        commands = LazyCommands({name: place for name, (_, place) in self.listed.items()})
        super().__init__(**{**attributes, "commands": commands})

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """List the names, in the order of the help."""
        return list(self.listed)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]
        """Give what stands for a command in a list of them."""
        return TyperCommand(cmd_name, help=self.listed[cmd_name][0]) if cmd_name in self.listed else None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Give the command that is to be run."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and self.commands[command.name or ""], rest

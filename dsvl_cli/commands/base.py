"""Commands and groups whose help and usage errors are in our own words.

Typer's draw boxes that break words, and name the types of Python and options that the user did not write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dsvl_cli.errors import DsvlError, UsageError


class Command(TyperCommand):
    """A command."""

    allow_extra_args = True  # `parse_args` rejects them, in other words
    arguments: Sequence[str] = ()  # those that were parsed last

    def get_help(self, ctx: typer.Context) -> str:  # type: ignore[override]
        """Return the help page."""
        from dsvl_cli.commands.help import render_help

        return render_help(self, ctx)

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the arguments.

        Raises:
            UsageError: they are wrong.
        """
        from dsvl_cli.commands import usage

        self.arguments = tuple(args)
        if not ctx.resilient_parsing:
            usage.check_written(self, ctx, args)
        try:
            super().parse_args(ctx, args)
        except typer.TyperException as exc:
            raise usage.explain(exc, self, ctx, self.arguments) from exc
        except DsvlError as error:
            usage.name_origins(error, self, ctx)
            raise
        if ctx.args and not ctx.resilient_parsing:
            raise usage.refuse_extra(self, ctx)
        return ctx.args

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; an error about a setting says where that setting is made."""
        try:
            return super().invoke(ctx)
        except DsvlError as error:
            from dsvl_cli.commands.usage import name_origins

            name_origins(error, self, ctx)
            raise


class Group(TyperGroup):
    """A group of commands."""

    def get_help(self, ctx: typer.Context) -> str:  # type: ignore[override]
        """Return the help page."""
        from dsvl_cli.commands.help import render_help

        return render_help(self, ctx)

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse what comes before the command.

        Raises:
            UsageError: it is wrong.
        """
        arguments = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as exc:
            from dsvl_cli.commands import usage

            raise usage.explain(exc, self, ctx, arguments) from exc

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Return the command to run, its name and its arguments.

        Raises:
            UsageError: there is no such command.
        """
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            from dsvl_cli.commands.usage import refuse_command

            raise refuse_command(self, ctx, args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command.

        Raises:
            UsageError: there is none.
        """
        try:
            return super().invoke(ctx)
        except typer.TyperException as exc:  # of this group: a command's own are explained already
            names = ", ".join(self.list_commands(ctx))
            path = ctx.command_path
            raise UsageError(f"{path} needs a command: {names}", f"{path} --help explains them") from exc


class Commands(typer.Typer):
    """A Typer of one command or of a group."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"cls": Group, "add_completion": False, "rich_markup_mode": None, **settings})

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Declare a command, as `typer.Typer.command` does."""
        return super().command(name, **{"cls": Command, **settings})

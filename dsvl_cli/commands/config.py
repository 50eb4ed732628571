"""`dsvl config`: the file of your own settings, `config.toml`."""

from __future__ import annotations

import typer

from dsvl_cli.commands.base import Commands
from dsvl_cli.commands.options import Debug, make_console
from dsvl_cli.config import COMMANDS

app = Commands(help="Print an example of config.toml or its path, or open it in your editor.")


@app.command()
def example(ctx: typer.Context, debug: Debug = False) -> None:
    """Print a complete config.toml: every setting with its meaning, commented out."""
    from dsvl_cli.app.config import print_example

    print_example(make_console(), _read_meanings(ctx))


@app.command()
def path(debug: Debug = False) -> None:
    """Print where config.toml is, or would be."""
    from dsvl_cli.app.config import print_path

    print_path(make_console())


@app.command()
def edit(ctx: typer.Context, debug: Debug = False) -> None:
    """Open config.toml in $VISUAL or $EDITOR, and check it afterwards.

    If there is none yet, it begins as the example.
    """
    from dsvl_cli.app.config import edit_config

    edit_config(make_console(), _read_meanings(ctx))


def _read_meanings(ctx: typer.Context) -> dict[str, str]:
    """Return the help of all options, by the names of their settings."""
    commands = getattr(ctx.find_root().command, "commands", {})
    parameters = [found for name in reversed(COMMANDS) for found in commands[name].params]
    return {found.name: found.help or "" for found in parameters}

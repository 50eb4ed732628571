"""`dsvl models`: the models that can be named, what is on this machine, and room for others."""

from __future__ import annotations

from typing import Annotated

import typer

from dsvl_cli.commands import options
from dsvl_cli.commands.base import Commands
from dsvl_cli.commands.options import Debug, Json, Yes, make_console

HELP_EPILOG = """
# What is here, and what would fit; one JSON object per line.
$ dsvl models
$ dsvl models --json | jq -r .name

# Make room: a model of the hub cache, or the packed weights in dsvl's cache.
$ dsvl models rm 7b
$ dsvl models rm packed --yes
"""

app = Commands(
    help="List the models that can be named, and whether each would fit; remove downloaded ones.",
    epilog=HELP_EPILOG,
)


@app.callback(invoke_without_command=True)
def models(ctx: typer.Context, as_json: Json = False, debug: Debug = False) -> None:
    """List the models that can be named, and whether each would fit; remove downloaded ones."""
    if ctx.invoked_subcommand is None:
        list_here(ctx, as_json, debug)


@app.command("list")
def list_here(ctx: typer.Context, as_json: Json = False, debug: Debug = False) -> None:
    """List the aliases, the models of the hub cache and of this folder, and the packed weights in dsvl's cache."""
    from dsvl_cli.app.models import print_models

    print_models(make_console(), options.read_own_aliases(), as_json=as_json)


@app.command("rm")
def remove(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            autocompletion=options.complete_model,
            help="Aliases, hub ids, or names of packed weights; packed stands for all of these.",
        ),
    ],
    yes: Yes = False,
    debug: Debug = False,
) -> None:
    """Remove downloaded models from the hub cache, or packed weights, after asking.

    Folders of your own are never removed.
    """
    from dsvl_cli.app.models import remove_models

    remove_models(make_console(), names, options.read_own_aliases(), yes=yes)

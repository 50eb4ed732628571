"""`dsvl sessions`: the conversations that `dsvl chat` saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsvl_cli.commands.base import Commands
from dsvl_cli.commands.options import Debug, Json, Yes, make_console

app = Commands(help="List, show, search, name, export and remove saved conversations.")

Session = Annotated[str, typer.Argument(metavar="SESSION", help="Its id, a prefix of the id, or its name.")]


@app.command("list")
def list_kept(
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="Show only the last N.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the conversations, most recent first."""
    from dsvl_cli.app.sessions import list_sessions

    list_sessions(make_console(), as_json=as_json, limit=limit)


@app.command()
def show(session: Session, debug: Debug = False) -> None:
    """Print a conversation as Markdown."""
    from dsvl_cli.app.sessions import show_session

    show_session(make_console(), session)


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORD...", help="Words that must all occur in one message.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search the text of conversations."""
    from dsvl_cli.app.sessions import search_sessions

    search_sessions(make_console(), " ".join(words), as_json=as_json)


@app.command()
def export(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .md, .html or .json file.")],
    beside: Annotated[
        bool,
        typer.Option("--pictures-beside", help="Write the pictures to a folder beside FILE instead of embedding them."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it exists.")] = False,
    debug: Debug = False,
) -> None:
    """Write a conversation with its pictures to a file."""
    from dsvl_cli.app.sessions import write_session

    write_session(make_console(), session, file, embed=not beside, overwrite=overwrite)


@app.command()
def rename(
    session: Session,
    title: Annotated[list[str], typer.Argument(metavar="TITLE...", help="The new name; quotes are not needed.")],
    debug: Debug = False,
) -> None:
    """Name a conversation, or give it another name."""
    from dsvl_cli.app.sessions import rename_session

    rename_session(make_console(), session, " ".join(title))


@app.command()
def rm(
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION...", help="Ids, prefixes of ids, or names.")],
    yes: Yes = False,
    debug: Debug = False,
) -> None:
    """Remove conversations permanently, after asking."""
    from dsvl_cli.app.sessions import remove_sessions

    remove_sessions(make_console(), sessions, yes=yes)

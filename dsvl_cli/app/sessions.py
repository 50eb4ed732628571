"""`dsvl sessions`: lists, shows, searches, names, exports and removes saved conversations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dsvl_cli.sessions.export import export_session
from dsvl_cli.sessions.markdown import escape_line, to_markdown
from dsvl_cli.sessions.store import SessionStore, default_store_path
from dsvl_cli.terminal.confirmation import confirm_removal
from dsvl_cli.terminal.sanitize import sanitize_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dsvl_cli.engine.conversation import Picture
    from dsvl_cli.sessions.session import SessionSummary
    from dsvl_cli.terminal.console import Console

_WIDE = 70  # columns; narrower tables show only ids and titles


def list_sessions(console: Console, *, as_json: bool = False, limit: int | None = None) -> None:
    """List the conversations, most recent first: as a table on a terminal, as tab-separated fields in a pipe.

    The fields are id, name, time of the last change, numbers of messages and pictures, model, and title.
    """
    with _open_store(console) as store:
        sessions = store.list(limit)
    if as_json:
        console.write("".join(_json_line(session) for session in sessions))
    elif not console.answer_is_terminal:
        console.write("".join(_fields(*_row(session)) for session in sessions))
    elif sessions:
        console.draw(_table(sessions, console))
    else:
        console.status("no saved conversations yet")


def show_session(console: Console, key: str) -> None:
    """Print a conversation as Markdown, with a placeholder for each picture."""

    def show_picture(picture: Picture) -> str:
        return f"[picture {next(numbers)}: {escape_line(picture.name)}, {picture.width}x{picture.height}]"

    with _open_store(console) as store:
        session = store.load(key)
    numbers = session.conversation.numbers()
    console.write(to_markdown(session, show_picture))


def search_sessions(console: Console, text: str, *, as_json: bool = False) -> None:
    """List the conversations that have all words of a text in one message, with an excerpt of it."""
    with _open_store(console) as store:
        hits = store.search(text)
    for hit in hits:
        session = hit.session
        if as_json:
            console.write(_json_line(session, excerpt=hit.excerpt))
        elif not console.answer_is_terminal:
            console.write(_fields(session.id, session.name or "", hit.excerpt))
        else:
            console.heading(f"{session.id}  {_label(session)}")
            console.write(f"  {sanitize_line(hit.excerpt)}\n")
    if not hits:
        console.status(f"no conversation mentions {text}")


def write_session(console: Console, key: str, path: Path, *, embed: bool = True, overwrite: bool = False) -> None:
    """Write a conversation to a file, as `export_session` does."""
    with _open_store(console) as store:
        session = store.load(key)
    export_session(session, path, embed=embed, overwrite=overwrite)
    console.status(f"wrote {path}")


def rename_session(console: Console, key: str, name: str) -> None:
    """Name a conversation, or give it another name."""
    with _open_store(console) as store:
        session = store.find(key)
        store.rename(session.id, name)
    console.status(f"{session.id} is now named {' '.join(name.split())}")


def remove_sessions(console: Console, keys: Sequence[str], *, yes: bool = False) -> None:
    """Remove conversations permanently, after asking; if one cannot be found, none is removed.

    Args:
        console: where to ask.
        keys: ids, prefixes of ids, or names.
        yes: do not ask.

    Raises:
        UsageError: there is no terminal to ask on.
        DsvlError: one of them does not exist.
    """
    with _open_store(console) as store:
        sessions = {session.id: session for session in map(store.find, keys)}
        what = "this conversation" if len(sessions) == 1 else f"these {len(sessions)} conversations"
        items = (f"{each.id}  {_label(each)} ({each.messages} messages)" for each in sessions.values())
        if not yes and not confirm_removal(console, what, items):
            console.status("nothing is removed")
            return
        for session in sessions.values():
            store.delete(session.id)
            console.status(f"removed {session.id}  {_label(session)}")


def _open_store(console: Console) -> SessionStore:
    return SessionStore(default_store_path(console.environment.variables))


def _label(session: SessionSummary) -> str:
    return f"{session.name}: {session.title}" if session.name else session.title


def _row(session: SessionSummary) -> tuple[str, ...]:
    return (
        session.id,
        session.name or "",
        session.updated.astimezone().isoformat(timespec="seconds"),
        str(session.messages),
        str(session.pictures),
        session.model,
        session.title,
    )


def _fields(*fields: str) -> str:
    """Join fields with tabs, replacing tabs and line breaks within them by spaces."""
    return "\t".join(" ".join(field.split()) for field in fields) + "\n"


def _json_line(session: SessionSummary, **more: str) -> str:
    value = {
        "id": session.id,
        "name": session.name,
        "title": session.title,
        "model": session.model,
        "created": session.created.isoformat(),
        "updated": session.updated.isoformat(),
        "messages": session.messages,
        "pictures": session.pictures,
        **more,
    }
    line = json.dumps(value, ensure_ascii=False) + "\n"
    return line.encode("utf-8", "backslashreplace").decode()  # a lone surrogate becomes its JSON escape


def _table(sessions: Sequence[SessionSummary], console: Console) -> str:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold" if console.colour else "")
    table.add_column("Id", no_wrap=True, min_width=max(len(session.id) for session in sessions))
    wide = console.width >= _WIDE
    if wide:
        table.add_column("Changed", no_wrap=True)
        table.add_column("Messages", no_wrap=True, justify="right")
    table.add_column("Conversation", no_wrap=True, overflow="ellipsis")
    for session in sessions:
        more = (f"{session.updated.astimezone():%Y-%m-%d %H:%M}", str(session.messages)) if wide else ()
        table.add_row(*(Text(sanitize_line(cell)) for cell in (session.id, *more, _label(session))))
    renderer = console.renderer()
    with renderer.capture() as captured:
        renderer.print(table)
    return captured.get()

"""Reads and writes the messages of a stored session."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, get_args

from dsvl_cli.engine.conversation import FinishReason, Message, Part, Picture, Role
from dsvl_cli.sessions.columns import (
    pack,
    pack_ids,
    pack_notes,
    pack_optional,
    unpack,
    unpack_ids,
    unpack_notes,
    unpack_optional,
)

if TYPE_CHECKING:
    import sqlite3


def read_messages(database: sqlite3.Connection, session_id: str, *, with_data: bool = False) -> list[Message]:
    """Return the messages of a session; the pictures' bytes only on demand, as they do not matter for equality."""
    found: dict[int, list[Part]] = {}
    for message, text, sha256, name, width, height, notes, data in database.execute(
        "SELECT message, text, picture, parts.name, width, height, notes, data FROM messages"
        " JOIN parts ON parts.message = messages.id LEFT JOIN pictures ON pictures.sha256 = picture AND ?"
        " WHERE session = ? ORDER BY messages.position, parts.position",
        (with_data, session_id),
    ):
        part: Part
        if sha256 is None:
            part = unpack(text)
        else:
            part = Picture(unpack(name), data or b"", sha256, int(width), int(height), unpack_notes(notes))
            if with_data and hashlib.sha256(part.data).hexdigest() != sha256:
                raise ValueError("another picture")
        found.setdefault(message, []).append(part)
    rows = database.execute(
        "SELECT id, role, token_ids, model, finish_reason FROM messages WHERE session = ? ORDER BY position",
        (session_id,),
    )
    messages = [
        Message(role, tuple(found.get(message, ())), unpack_ids(token_ids), unpack_optional(model), finish_reason)
        for message, role, token_ids, model, finish_reason in rows
    ]
    for each in messages:
        if each.role not in get_args(Role) or each.finish_reason not in (None, *get_args(FinishReason)):
            raise ValueError("not a message")
    return messages


def write_message(database: sqlite3.Connection, session_id: str, position: int, message: Message) -> None:
    """Add a message to a session, and its pictures if they are not stored yet."""
    cursor = database.execute(
        "INSERT INTO messages (session, position, role, token_ids, model, finish_reason) VALUES (?, ?, ?, ?, ?, ?)",
        (
            session_id,
            position,
            message.role,
            pack_ids(message.token_ids),
            pack_optional(message.model),
            message.finish_reason,
        ),
    )
    for number, part in enumerate(message.parts):
        key = (cursor.lastrowid, number)
        if isinstance(part, str):
            database.execute("INSERT INTO parts (message, position, text) VALUES (?, ?, ?)", (*key, pack(part)))
            continue
        database.execute("INSERT OR IGNORE INTO pictures (sha256, data) VALUES (?, ?)", (part.sha256, part.data))
        database.execute(
            "INSERT INTO parts (message, position, picture, name, width, height, notes) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, part.sha256, pack(part.name), part.width, part.height, pack_notes(part.notes)),
        )


def drop_unused_pictures(database: sqlite3.Connection) -> None:
    """Delete the pictures that are in no message any more."""
    used = "SELECT picture FROM parts WHERE picture IS NOT NULL"
    database.execute(f"DELETE FROM pictures WHERE sha256 NOT IN ({used})")

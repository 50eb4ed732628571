"""Stores conversations in an SQLite file in the user's data folder."""

from __future__ import annotations

import difflib
import re
import secrets
import time
import unicodedata
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.conversation import Conversation
from dsvl_cli.errors import DsvlError
from dsvl_cli.sessions.columns import (
    pack,
    pack_numbers,
    pack_optional,
    pack_settings,
    unpack,
    unpack_numbers,
    unpack_optional,
    unpack_settings,
)
from dsvl_cli.sessions.messages import drop_unused_pictures, read_messages, write_message
from dsvl_cli.sessions.schema import empty_database, explained_errors, open_database, transaction
from dsvl_cli.sessions.session import SavedSession, SearchHit, SessionSummary, title_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from dsvl_cli.engine.conversation import Message

_ID_LETTERS = "bcdfghjkmnpqrstvwxz23456789"  # no vowels, so no words, and no characters that look alike
_SUMMARY = "SELECT id, name, title, model, created, updated, messages, pictures FROM sessions"
_EXCERPT_LENGTH = 80


def default_store_path(variables: Mapping[str, str]) -> Path:
    """Return the path of the store: in DSVL_DATA_DIR, or else in the platform's folder for user data.

    An `XDG_DATA_HOME` that is set counts on every platform; a relative one is ignored, as its specification says.

    Args:
        variables: the process's environment; the platform's folder is looked up there, whatever is given here.

    Raises:
        DsvlError: the user has no home folder.
    """
    xdg = Path(variables.get("XDG_DATA_HOME", ""))
    if own := variables.get("DSVL_DATA_DIR"):
        folder = Path(own).expanduser()
    elif xdg.is_absolute():  # platformdirs looks at it everywhere but on Windows
        folder = xdg / "dsvl"
    else:
        from platformdirs import user_data_path

        try:
            folder = user_data_path("dsvl", appauthor=False)
        except RuntimeError as exc:
            raise DsvlError("there is no home folder to save conversations in", "set HOME or DSVL_DATA_DIR") from exc
    return folder / "sessions.sqlite3"


class SessionStore:
    """The conversations in a file, which is opened on first use and created by the first save.

    Several processes can use the file at the same time. Every save is one transaction: if the process is killed or the
    disk is full, the previous state remains. Not thread-safe.

    Raises:
        DsvlError: by every method but `create` and `close`: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._seen: dict[str, int] = {}  # the revision of each session loaded or saved here
        self._created: set[str] = set()  # ids that were given out
        self._saved: dict[str, list[Message]] = {}  # the messages of that revision, which need not be read again

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; other methods open it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def create(self) -> str:
        """Return an id for a new session, which is stored by the first `save` with a message."""
        while True:
            suffix = "".join(secrets.choice(_ID_LETTERS) for _ in range(3))
            session_id = f"{time.strftime('%Y%m%d-%H%M')}-{suffix}"
            # One of this store would be taken for the same session, and its conversation replaced.
            if session_id not in self._seen and session_id not in self._created:
                self._created.add(session_id)
                return session_id

    def save(
        self, session_id: str, conversation: Conversation, model: str, settings: Mapping[str, Any] | None = None
    ) -> str:
        """Update the stored session to a conversation, writing only the messages from the first change on.

        Args:
            session_id: of a session that this store created or loaded.
            conversation: its current state.
            model: the model's name as the user gave it.
            settings: JSON values to restore with the conversation; None keeps those saved before.

        Returns:
            The id to use from then on: `session_id`, or a new one if another chat has continued the same session since
            this store last saw it. Both chats are then stored.
        """
        if not conversation.messages and session_id not in self._seen:
            return session_id
        with self._database(write=True) as database:
            query = "SELECT revision, model, system, settings, dropped FROM sessions WHERE id = ?"
            while (row := database.execute(query, (session_id,)).fetchone()) and row[0] != self._seen.get(session_id):
                session_id = self.create()
            stored = self._saved.get(session_id) if row else []
            stored = read_messages(database, session_id) if stored is None else stored
            kept = _common_prefix(stored, conversation.messages)
            packed = row[3] if row and settings is None else pack_settings(settings or {})
            about = (pack(model), pack_optional(conversation.system), packed, pack_numbers(conversation.dropped))
            if kept == len(stored) == len(conversation.messages) and (row is None or row[1:] == about):
                return session_id
            revision = database.execute("SELECT coalesce(max(revision), 0) + 1 FROM sessions").fetchone()[0]
            _write_session(database, session_id, conversation, about, revision)
            database.execute("DELETE FROM messages WHERE session = ? AND position >= ?", (session_id, kept))
            for position, message in enumerate(conversation.messages[kept:], kept):
                write_message(database, session_id, position, message)
            if kept < len(stored):
                drop_unused_pictures(database)
        self._saved = {session_id: list(conversation.messages)}
        self._seen[session_id] = revision  # only now: the transaction has succeeded
        return session_id

    def rename(self, session_id: str, name: str) -> None:
        """Name a saved session.

        Raises:
            DsvlError: the name is empty or already used, or the session has not been saved yet.
        """
        name = " ".join(name.split())
        if not name:
            raise DsvlError("the name of a conversation cannot be empty")
        with self._database(write=True) as database:
            others = database.execute("SELECT id, name FROM sessions WHERE id <> ?", (session_id,))
            if any(name in (other, unpack_optional(taken)) for other, taken in others):
                raise DsvlError(f"another conversation is named {name!r}", "choose another name, or delete that one")
            cursor = database.execute("UPDATE sessions SET name = ? WHERE id = ?", (pack(name), session_id))
            if not cursor.rowcount:
                raise DsvlError("there is nothing to name yet", "send a message first")

    def find(self, key: str) -> SessionSummary:
        """Return the summary of a session.

        Args:
            key: its id, its name, or a prefix of its id.

        Raises:
            DsvlError: there is none, or more than one; the hint suggests a similar one.
        """
        with self._database() as database:
            return _find(database, key)

    def load(self, key: str) -> SavedSession:
        """Return the session found by `find`, with its conversation."""
        with self._database() as database:
            return self._load(database, _find(database, key))

    def latest(self) -> SavedSession | None:
        """Return the session saved last, or None if there is none."""
        with self._database() as database:
            row = database.execute(f"{_SUMMARY} ORDER BY revision DESC LIMIT 1").fetchone()
            return None if row is None else self._load(database, _summary(row))

    def list(self, limit: int | None = None) -> tuple[SessionSummary, ...]:
        """Return the sessions, the most recently saved first, at most `limit`."""
        with self._database() as database:
            rows = database.execute(f"{_SUMMARY} ORDER BY revision DESC LIMIT ?", (-1 if limit is None else limit,))
            return tuple(_summary(row) for row in rows)

    def search(self, text: str) -> tuple[SearchHit, ...]:
        """Return the sessions with a message that contains every word of `text`, the most recently saved first.

        Words match anywhere, ignoring case, in texts and in names of pictures. The messages are scanned: a full-text
        index would not find parts of words or words in Chinese, and there is too little text to need one.
        """
        words = unicodedata.normalize("NFC", text).casefold().split()
        if not words:
            return ()
        hits: dict[str, SearchHit] = {}
        with self._database() as database:
            summaries = {row[0]: _summary(row) for row in database.execute(_SUMMARY)}
            rows = database.execute(
                "SELECT sessions.id, messages.id, coalesce(text, parts.name) FROM sessions"
                " JOIN messages ON messages.session = sessions.id JOIN parts ON parts.message = messages.id"
                " ORDER BY revision DESC, messages.position, parts.position"
            )
            for (session_id, _), parts in groupby(rows, key=lambda row: (row[0], row[1])):
                if session_id in hits:
                    continue
                message = unicodedata.normalize("NFC", " ".join(unpack(part[2]) for part in parts))
                folded = message.casefold()
                if all(word in folded for word in words):
                    hits[session_id] = SearchHit(summaries[session_id], _excerpt(message, words[0]))
        return tuple(hits.values())

    def delete(self, key: str) -> SessionSummary:
        """Delete the session found by `find`, and its pictures that no other session uses.

        Returns:
            The summary of the deleted session.
        """
        with self._database(write=True) as database:
            summary = _find(database, key)
            database.execute("DELETE FROM sessions WHERE id = ?", (summary.id,))
            drop_unused_pictures(database)
            return summary

    def _load(self, database: sqlite3.Connection, summary: SessionSummary) -> SavedSession:
        query = "SELECT system, revision, settings, dropped FROM sessions WHERE id = ?"
        system, revision, settings, dropped = database.execute(query, (summary.id,)).fetchone()
        messages = read_messages(database, summary.id, with_data=True)
        self._seen[summary.id] = revision
        conversation = Conversation(messages, unpack_optional(system), dropped=unpack_numbers(dropped))
        return SavedSession(
            summary.id,
            summary.name,
            summary.model,
            summary.created,
            summary.updated,
            conversation,
            unpack_settings(settings),
        )

    @contextmanager
    def _database(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Start a transaction on the file, or on an empty database if there is no file and nothing to write."""
        with explained_errors(self.path):
            if self._connection is None and (write or self.path.exists()):
                self._connection = open_database(self.path)
            if self._connection is None:
                with closing(empty_database()) as nothing:
                    yield nothing
                return
            with transaction(self._connection, "IMMEDIATE" if write else "DEFERRED"):
                yield self._connection


def _find(database: sqlite3.Connection, key: str) -> SessionSummary:
    rows = database.execute("SELECT id, name FROM sessions")
    names = {row[0]: unpack_optional(row[1]) for row in rows if isinstance(row[0], str)}  # others only by damage
    found = [key] if key in names else [each for each, name in names.items() if name == key]
    found = found or [each for each in names if key and each.startswith(key)]
    if len(found) > 1:
        raise DsvlError(f"{len(found)} conversations start with {key!r}", f"type more of the id, such as {max(found)}")
    if not found:
        nearest = difflib.get_close_matches(key, [*filter(None, names.values()), *names], n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise DsvlError(f"there is no conversation {key!r}", f"{hint}`dsvl sessions list` shows them all")
    return _summary(database.execute(f"{_SUMMARY} WHERE id = ?", found).fetchone())


def _summary(row: Sequence[Any]) -> SessionSummary:
    session_id, name, title, model, created, updated, messages, pictures = row
    return SessionSummary(
        session_id,
        unpack_optional(name),
        unpack(title),
        unpack(model),
        datetime.fromtimestamp(created / 1000, UTC),
        datetime.fromtimestamp(updated / 1000, UTC),
        int(messages),
        int(pictures),
    )


def _write_session(
    database: sqlite3.Connection,
    session_id: str,
    conversation: Conversation,
    about: tuple[bytes, bytes | None, bytes | None, bytes | None],
    revision: int,
) -> None:
    now = time.time_ns() // 1_000_000
    title, messages, pictures = pack(title_of(conversation)), len(conversation.messages), len(conversation.pictures)
    database.execute(
        "INSERT INTO sessions"
        " (id, title, model, system, settings, dropped, created, updated, revision, messages, pictures)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET title = excluded.title,"
        " model = excluded.model, system = excluded.system, settings = excluded.settings, dropped = excluded.dropped,"
        " updated = excluded.updated, revision = excluded.revision, messages = excluded.messages,"
        " pictures = excluded.pictures",
        (session_id, title, *about, now, now, revision, messages, pictures),
    )


def _common_prefix(old: Sequence[Message], new: Sequence[Message]) -> int:
    pairs = enumerate(zip(old, new, strict=False))
    return next((index for index, (before, after) in pairs if before != after), min(len(old), len(new)))


def _excerpt(text: str, word: str) -> str:
    """Return the text around a word in one line."""
    line = " ".join(text.split())
    match = re.search(re.escape(word), line, re.IGNORECASE)
    start, end = match.span() if match else (0, 0)  # a few letters, such as `ß`, only match after case folding
    begin = max(0, start - _EXCERPT_LENGTH // 2)
    end = max(begin + _EXCERPT_LENGTH, end)
    return ("…" if begin else "") + line[begin:end].strip() + ("…" if end < len(line) else "")

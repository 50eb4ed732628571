"""The SQLite file that conversations are kept in: its tables, how it is opened, and what its errors mean.

    sessions ──< messages ──< parts >── pictures

A part is a text, or refers to a picture by the SHA-256 of its bytes, which are stored once. Text that comes from
outside may hold lone surrogates (a file name that is not UTF-8 has them), which SQLite's TEXT cannot: such columns are
BLOBs, written by `pack`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION_ID = 0x6473766C  # "dsvl", so that another program's database is never taken for ours
BUSY_SECONDS = 10.0  # how long one process waits for another one's write

# Entry n takes a file from format n to n + 1. Entries are only ever added; `PRAGMA user_version` is the format.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE sessions (
            id TEXT PRIMARY KEY,
            name BLOB UNIQUE,
            title BLOB NOT NULL,
            model BLOB NOT NULL,
            system BLOB,
            created INTEGER NOT NULL,          -- milliseconds since 1970, UTC
            updated INTEGER NOT NULL,
            revision INTEGER NOT NULL UNIQUE,  -- counts the file's saves: their order, whatever the clock did
            messages INTEGER NOT NULL,
            pictures INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE messages (
            id INTEGER PRIMARY KEY,
            session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            role TEXT NOT NULL,
            token_ids BLOB,                    -- unsigned 32-bit integers, little-endian
            model BLOB,
            finish_reason TEXT,
            UNIQUE (session, position)
        )
        """,
        """
        CREATE TABLE pictures (
            sha256 TEXT PRIMARY KEY,
            data BLOB NOT NULL
        )
        """,
        """
        CREATE TABLE parts (
            message INTEGER NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            text BLOB,
            picture TEXT REFERENCES pictures (sha256),
            name BLOB,
            width INTEGER,
            height INTEGER,
            notes BLOB,                        -- a JSON array of strings
            PRIMARY KEY (message, position),
            CHECK ((text IS NULL) <> (picture IS NULL))
        ) WITHOUT ROWID
        """,
        "CREATE INDEX parts_by_picture ON parts (picture) WHERE picture IS NOT NULL",
    ),
)


def pack(text: str) -> bytes:
    """Encode any string, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def unpack(data: bytes) -> str:
    """Give back the string that `pack` was given."""
    return data.decode("utf-8", "surrogatepass")


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, creating it (0600, a new folder 0700) or bringing it to the current format where needed.

    Raises:
        DsvlError: the file is another program's, or a newer dsvl's. It is left as it was.
        sqlite3.Error, OSError: see `explained_errors`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its side files the same mode
    # One thread at a time uses it, but not always the one that opened it.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _check_origin(connection, path)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        if _pragma(connection, "user_version") == 0:
            _choose_modes(connection)
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def empty_database() -> sqlite3.Connection:
    """Make a database in memory without any session: what a file that does not exist reads as."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _migrate(connection)
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
    """All or nothing; DEFERRED reads one consistent state, IMMEDIATE waits its turn to write."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors, such as a full disk, have already rolled back
            connection.execute("ROLLBACK")
        raise


@contextmanager
def explained_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say about the file into a `DsvlError` with a way out."""
    try:
        yield
    except sqlite3.Error as exc:
        raise _explain(exc, path) from exc
    except OSError as exc:
        message = f"the conversations in {path} cannot be opened: {exc.strerror}"
        raise DsvlError(message, "set DSVL_DATA_DIR to a folder that can be written, or use --no-save") from exc


def _explain(exc: sqlite3.Error, path: Path) -> DsvlError:
    code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the lower byte is the primary code
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DsvlError(
            f"the conversations in {path} are damaged: {exc}",
            f"move {path} away to begin a new file; `sqlite3 FILE .recover` may read what is left of the old one",
        )
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return DsvlError(
            f"{path} cannot be written: {exc}", "make room on the disk; what was saved before is still there"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DsvlError(f"another program keeps {path} locked", "end it, or try again later")
    return DsvlError(
        f"the conversations in {path} cannot be used: {exc}",
        "set DSVL_DATA_DIR to a folder that can be written, or use --no-save",
    )


def _check_origin(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is not ours to change, before anything is written to it."""
    with transaction(connection, "DEFERRED"):  # one state, though another process may be making the tables just now
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise DsvlError(f"{path} is another program's database", "move it away, or set DSVL_DATA_DIR to another folder")
    if version > len(MIGRATIONS):
        raise DsvlError(
            f"{path} was written by a newer dsvl (format {version}, this one reads {len(MIGRATIONS)})",
            "update dsvl, or set DSVL_DATA_DIR to another folder",
        )


def _choose_modes(connection: sqlite3.Connection) -> None:
    """Set what stays with a new file; asking again would need the write lock. `synchronous` is left at FULL."""
    connection.execute("PRAGMA auto_vacuum = FULL")  # deleted pictures give their space back
    # With WAL readers and writers do not wait for each other. A process that loses the race of two first starts finds
    # the file locked, and can go on: the other one sets the mode.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")


def _migrate(connection: sqlite3.Connection) -> None:
    if _pragma(connection, "user_version") == len(MIGRATIONS):
        return
    with transaction(connection, "IMMEDIATE"):
        done = _pragma(connection, "user_version")  # again: another process may have been faster
        for statements in MIGRATIONS[done:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

"""The SQLite file with the saved conversations: its schema, opening it, and its errors.

    sessions ──< messages ──< parts >── pictures

A part is a text, or a reference to a picture by the SHA-256 of its bytes, which are stored once. External text may
contain lone surrogates (in file names that are not UTF-8), which SQLite's TEXT cannot store: such columns are BLOBs,
written by `columns.pack`.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION_ID = 0x6473766C  # "dsvl", to recognize databases of other programs
BUSY_SECONDS = 10.0  # how long a process waits for another one's write

# Entry n migrates a file from format n to n + 1. Entries are only ever added; `PRAGMA user_version` is the format.
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
    # A JSON object; NULL in sessions of format 1.
    ("ALTER TABLE sessions ADD COLUMN settings BLOB",),
    # The numbers of dropped pictures: a JSON array of integers; NULL if there are none.
    ("ALTER TABLE sessions ADD COLUMN dropped BLOB",),
)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, creating it (0600, a new folder 0700) or migrating it to the current format if necessary.

    Raises:
        DsvlError: the file belongs to another program or a newer dsvl. It is not changed.
        sqlite3.Error, OSError: see `explained_errors`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its side files the same mode
    # Used by one thread at a time, but not always by the one that opened it.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _check_origin(connection, path)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # overwrite deleted data
        if _pragma(connection, "user_version") == 0:
            _choose_modes(connection)
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def empty_database() -> sqlite3.Connection:
    """Create an empty database in memory, used in place of a file that does not exist."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _migrate(connection)
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
    """Run a transaction; DEFERRED reads one consistent state, IMMEDIATE waits for the write lock."""
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
    """Turn errors of SQLite and the system into a `DsvlError` with a hint."""
    try:
        yield
    except sqlite3.Error as exc:
        raise _explain(exc, path) from exc
    except OSError as exc:
        message = f"the conversations in {path} cannot be opened: {exc.strerror}"
        raise DsvlError(message, "set DSVL_DATA_DIR to a writable folder, or use --no-save") from exc
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError, struct.error) as exc:
        # A value that dsvl never writes: SQLite checks neither types nor texts.
        raise _damaged(path, "a stored value is invalid") from exc


def _damaged(path: Path, reason: str) -> DsvlError:
    return DsvlError(
        f"the conversations in {path} are damaged: {reason}",
        f"move {path} away to start a new file; `sqlite3 FILE .recover` may recover data from the old one",
    )


def _explain(exc: sqlite3.Error, path: Path) -> DsvlError:
    reason = (str(exc).splitlines() or [""])[0]  # SQLite quotes damaged statements, line breaks included
    code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the lower byte is the primary code
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, reason)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return DsvlError(
            f"{path} cannot be written: {reason}", "free some disk space; everything saved before is still there"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DsvlError(f"{path} is locked by another program", "close it, or try again later")
    return DsvlError(
        f"the conversations in {path} cannot be used: {reason}",
        "set DSVL_DATA_DIR to a writable folder, or use --no-save",
    )


def _check_origin(connection: sqlite3.Connection, path: Path) -> None:
    """Reject a file of another program or a newer version before writing to it."""
    with transaction(connection, "DEFERRED"):  # a consistent state, as another process may be creating the tables
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise DsvlError(f"{path} belongs to another program", "move it away, or set DSVL_DATA_DIR to another folder")
    if version > len(MIGRATIONS):
        raise DsvlError(
            f"{path} was written by a newer dsvl (format {version}, this version supports {len(MIGRATIONS)})",
            "update dsvl, or set DSVL_DATA_DIR to another folder",
        )


def _choose_modes(connection: sqlite3.Connection) -> None:
    """Set the persistent modes of a new file; setting them again would need the write lock. `synchronous` is FULL."""
    connection.execute("PRAGMA auto_vacuum = FULL")  # deleting pictures frees their disk space
    # With WAL, readers and writers do not block each other. If two processes create the file at the same time, one of
    # them finds it locked and can continue, because the other one sets the mode.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")


def _migrate(connection: sqlite3.Connection) -> None:
    if _pragma(connection, "user_version") == len(MIGRATIONS):
        return
    with transaction(connection, "IMMEDIATE"):
        done = _pragma(connection, "user_version")  # read again: another process may have migrated it
        for statements in MIGRATIONS[done:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

"""A damaged file of conversations is an error in one line, and is never changed."""

from __future__ import annotations

import itertools
import random
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from dsvl_cli.engine.conversation import Conversation
from dsvl_cli.errors import DsvlError
from dsvl_cli.sessions.export import export_session
from dsvl_cli.sessions.store import SessionStore
from tests.sessions.samples import answer, picture, question, talk

pytestmark = pytest.mark.fault("a damaged file of conversations")
ODD = (None, -1, 2**62, 0.5, "odd", b"", b"\xff\xfe\xed", b"{}", b"[1]", b"[" * 9000)
COLUMNS = {
    "sessions": (
        "id",
        "name",
        "title",
        "model",
        "system",
        "created",
        "updated",
        "messages",
        "pictures",
        "settings",
        "dropped",
    ),
    "messages": ("role", "token_ids", "model", "finish_reason", "position"),
    "parts": ("text", "picture", "name", "width", "height", "notes"),
    "pictures": ("data",),
}


def stored(folder: Path) -> Path:
    path = folder / "sessions.sqlite3"
    with SessionStore(path) as store:
        store.save("a-1", talk(question("What is it?", picture("a.png")), answer("A circle.")), "tiny")
    return path


def use(path: Path) -> None:
    """Everything that reads the file; an error must be for the user."""
    with SessionStore(path) as store:
        for each in (store.list, store.latest, lambda: store.load("a-1"), lambda: store.search("circle")):
            problem = ""
            try:
                each()
            except DsvlError as exc:
                problem = exc.message
            assert "\n" not in problem
        with suppress(DsvlError):
            export_session(store.load("a-1"), path.with_name("out.html"), overwrite=True)
            export_session(store.load("a-1"), path.with_name("out.json"), overwrite=True)


@pytest.mark.parametrize(("table", "column"), [(table, column) for table, names in COLUMNS.items() for column in names])
def test_any_value_in_any_column(tmp_path: Path, table: str, column: str) -> None:
    path = stored(tmp_path)
    sound = path.read_bytes()
    for value in ODD:
        path.write_bytes(sound)
        connection = sqlite3.connect(path, isolation_level=None)
        with suppress(sqlite3.IntegrityError):
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        connection.close()
        use(path)


def test_a_picture_that_is_another_one_is_not_shown(tmp_path: Path) -> None:
    path = stored(tmp_path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE pictures SET data = x'00'")
    connection.close()
    with SessionStore(path) as store, pytest.raises(DsvlError, match="damaged"):
        store.load("a-1")


@pytest.mark.fault("a damaged file of conversations", cases=60)
def test_bytes_that_changed(tmp_path: Path, chance: random.Random) -> None:
    path = stored(tmp_path)
    sound = path.read_bytes()
    for number in range(60):
        damaged = bytearray(sound)
        for _ in range(chance.randint(1, 40)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.randrange(1, len(damaged))] if number % 3 == 0 else damaged)
        use(path)


@pytest.mark.parametrize("content", [b"\0" * 4096, b"SQLite format 3\0", b"[loading]\nmodel = 1\n", b"\xff" * 100])
def test_a_file_that_is_no_store_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sessions.sqlite3"
    path.write_bytes(content)
    with SessionStore(path) as store:
        for _, save in itertools.product(range(2), (False, True)):
            with pytest.raises(DsvlError):
                store.save("b-1", Conversation([question("hello")]), "tiny") if save else store.list()
    assert path.read_bytes() == content

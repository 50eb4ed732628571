from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from dsvl_cli.errors import DsvlError
from dsvl_cli.sessions import schema
from dsvl_cli.sessions.store import SessionStore
from tests.sessions.samples import picture, question, talk

if TYPE_CHECKING:
    from pathlib import Path

CONVERSATION = talk(question("hi", picture(data=bytes(20_000))))


@pytest.fixture
def written(path: Path) -> Path:
    with SessionStore(path) as store:
        store.save("a", CONVERSATION, "tiny")
    return path


def test_an_older_file_is_brought_forward(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = (*schema.MIGRATIONS, ("ALTER TABLE sessions ADD COLUMN mood TEXT NOT NULL DEFAULT 'good'",))
    monkeypatch.setattr(schema, "MIGRATIONS", added)
    with SessionStore(written) as store:
        assert store.load("a").conversation == CONVERSATION
    connection = sqlite3.connect(written)
    assert connection.execute("SELECT mood FROM sessions").fetchall() == [("good",)]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(added),)
    connection.close()


def test_a_file_of_the_first_format_is_read_and_gets_settings(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        with closing(schema.open_database(path)) as connection:
            connection.execute("INSERT INTO sessions VALUES ('a', NULL, x'6869', x'74696e79', NULL, 0, 0, 1, 1, 0)")
            connection.execute("INSERT INTO messages VALUES (1, 'a', 0, 'user', NULL, NULL, NULL)")
            connection.execute("INSERT INTO parts (message, position, text) VALUES (1, 0, x'6869')")
    with SessionStore(path) as store:
        session = store.load("a")
        assert (session.model, session.settings, session.conversation) == ("tiny", {}, talk(question("hi")))
        store.save("a", session.conversation, "tiny", {"temperature": 0.7})
        store.save("a", session.conversation, "other")  # settings that are not given stay
    with SessionStore(path) as store:
        assert (store.load("a").model, store.load("a").settings) == ("other", {"temperature": 0.7})


def test_a_migration_that_fails_changes_nothing(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ("ALTER TABLE sessions ADD COLUMN mood TEXT", "ALTER TABLE nowhere ADD COLUMN mood TEXT")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with pytest.raises(DsvlError, match="cannot be used"), SessionStore(written) as store:
            store.list()
    with SessionStore(written) as store:
        assert store.load("a").conversation == CONVERSATION


def test_a_newer_file_is_refused_and_left_as_it_is(written: Path) -> None:
    connection = sqlite3.connect(written)
    connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    connection.close()
    assert_refused_untouched(written, "newer dsvl")


def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (address TEXT)")
    connection.close()
    assert_refused_untouched(path, "belongs to another program")


def test_what_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"milk, bread, " * 1000)
    assert_refused_untouched(path, "damaged")


def test_a_damaged_file_names_the_way_out(written: Path) -> None:
    with written.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (written.stat().st_size - 4096))
    with pytest.raises(DsvlError, match="damaged") as caught, SessionStore(written) as store:
        store.load("a")
    assert f"move {written} away" in (caught.value.hint or "")


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite3"
    path.touch()
    with SessionStore(path) as store:
        assert store.list() == ()
        store.save("a", CONVERSATION, "tiny")
        assert store.load("a").conversation == CONVERSATION


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DsvlError, match="cannot be opened") as caught, SessionStore(tmp_path / "file" / "s") as store:
        store.save("a", CONVERSATION, "tiny")
    assert "DSVL_DATA_DIR" in (caught.value.hint or "")


def test_a_file_that_stays_locked(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    holder = sqlite3.connect(written, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with SessionStore(written) as store:
        assert store.load("a").conversation == CONVERSATION  # reading does not wait
        with pytest.raises(DsvlError, match="locked"):
            store.delete("a")
        holder.execute("ROLLBACK")
        assert store.delete("a").id == "a"
    holder.close()


def assert_refused_untouched(path: Path, message: str) -> None:
    before = path.read_bytes()
    with pytest.raises(DsvlError, match=message) as caught, SessionStore(path) as store:
        store.save("a", CONVERSATION, "tiny")
    assert caught.value.hint
    assert str(path) in caught.value.message
    assert path.read_bytes() == before

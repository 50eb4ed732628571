from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsvl_cli.engine.conversation import Conversation, Message
from dsvl_cli.errors import DsvlError
from dsvl_cli.sessions.session import TITLE_LENGTH
from dsvl_cli.sessions.store import SessionStore, default_store_path
from tests.platforms import pretend
from tests.sessions.samples import answer, picture, question, talk

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]

any_text = st.text(st.characters(), max_size=12)  # lone surrogates and controls among them
pictures = st.builds(
    picture,
    any_text,
    st.sampled_from([b"", b"one", b"two", bytes(5000)]),
    width=st.integers(1, 9),
    notes=st.lists(any_text, max_size=2).map(tuple),
)
messages = st.builds(
    Message,
    role=st.sampled_from(["user", "assistant"]),
    parts=st.lists(any_text | pictures, max_size=3).map(tuple),
    token_ids=st.none() | st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple),
    model=st.none() | any_text,
    finish_reason=st.sampled_from([None, "stop", "length", "interrupted"]),
)
# An edit of one of two conversations: how much of it stays, and what comes after.
edits = st.tuples(st.integers(0, 1), st.integers(0, 4), st.lists(messages, max_size=2), st.none() | any_text)


def everything(conversation: Conversation) -> tuple[object, ...]:
    """What must come back; equality of pictures leaves out their bytes."""
    return conversation, [picture.data for picture in conversation.pictures]


def stored_pictures(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        return {row[0] for row in connection.execute("SELECT sha256 FROM pictures")}
    finally:
        connection.close()


def assert_sound(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


@settings(max_examples=40)
@given(st.lists(edits, min_size=1, max_size=6))
def test_what_was_saved_last_comes_back_after_any_edits(steps: Sequence[tuple[int, int, list[Message], str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.sqlite3")
        with SessionStore(path) as store:
            ids = ["20260101-0000-aaa", "20260101-0000-bbb"]
            now = [Conversation(), Conversation()]
            begun: set[int] = set()
            for which, kept, new, system in steps:
                now[which] = Conversation(now[which].messages[:kept] + new, system)
                assert store.save(ids[which], now[which], "tiny") == ids[which]
                begun |= {which} if now[which].messages else set()
                for each in begun:
                    with SessionStore(path) as other:
                        assert everything(other.load(ids[each]).conversation) == everything(now[each])
                if begun:
                    used = {picture.sha256 for each in begun for picture in now[each].pictures}
                    assert stored_pictures(path) == used


def test_a_chat_that_says_nothing_leaves_nothing(store: SessionStore) -> None:
    session_id = store.create()
    store.save(session_id, talk(system="be kind"), "tiny")
    assert not store.list()
    assert not store.search("kind")
    assert store.latest() is None
    with pytest.raises(DsvlError, match="there is no conversation"):
        store.load(session_id)
    assert not store.path.parent.exists()


def test_file_and_folder_are_private(store: SessionStore) -> None:
    before = os.umask(0)
    try:
        store.save(store.create(), talk(question("hi")), "tiny")
        assert {file.stat().st_mode & 0o777 for file in store.path.parent.iterdir()} == {0o600}
        assert store.path.parent.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_only_what_changed_is_written(store: SessionStore) -> None:
    conversation = talk(question("one"), answer("two"), question("three"))
    session_id = store.save(store.create(), conversation, "tiny")

    def rows() -> dict[bytes, int]:
        connection = sqlite3.connect(store.path)
        try:
            return dict(connection.execute("SELECT text, message FROM parts"))
        finally:
            connection.close()

    before = rows()
    conversation.messages[2:] = [question("another"), answer("four")]
    store.save(session_id, conversation, "tiny")
    after = rows()
    assert after.keys() == {b"one", b"two", b"another", b"four"}
    assert (after[b"one"], after[b"two"]) == (before[b"one"], before[b"two"])


def test_saving_the_same_again_does_not_move_it_to_the_top(store: SessionStore) -> None:
    old = store.save(store.create(), talk(question("old")), "tiny")
    new = store.save(store.create(), talk(question("new")), "tiny")
    store.save(old, talk(question("old")), "tiny")
    assert [session.id for session in store.list()] == [new, old]
    store.save(old, talk(question("old")), "7b")
    assert [session.id for session in store.list()] == [old, new]
    latest = store.latest()
    assert latest is not None
    assert (latest.id, latest.model) == (old, "7b")


def test_order_is_that_of_saves_even_when_the_clock_goes_back(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    for hours in (3, 2, 1):
        monkeypatch.setattr(time, "time_ns", lambda hours=hours: hours * 3_600 * 10**9)
        ids.append(store.save(store.create(), talk(question(f"at {hours}")), "tiny"))
    assert [session.id for session in store.list()] == ids[::-1]
    assert [session.id for session in store.list(limit=2)] == ids[:0:-1]


def test_list_says_what_is_in_it(store: SessionStore) -> None:
    conversation = talk(question(picture(), "what \n is\tthis?", picture("b.png")), answer("a cat"))
    session_id = store.save(store.create(), conversation, "tiny")
    store.rename(session_id, "  my   cat ")
    (summary,) = store.list()
    assert (summary.id, summary.name, summary.title) == (session_id, "my cat", "what is this?")
    assert (summary.model, summary.messages, summary.pictures) == ("tiny", 2, 2)
    assert summary.created == summary.updated
    assert abs(summary.created.timestamp() - time.time()) < 60


@pytest.mark.parametrize(
    ("conversation", "title"),
    [
        (talk(answer("hello"), question("hi")), "hi"),
        (talk(question(picture("a.png")), question("later")), "later"),
        (talk(question(picture("a.png"))), "a.png"),
        (talk(answer("hello")), ""),
        (talk(question("x" * 100)), "x" * (TITLE_LENGTH - 1) + "…"),
    ],
)
def test_title(store: SessionStore, conversation: Conversation, title: str) -> None:
    store.save(store.create(), conversation, "tiny")
    assert store.list()[0].title == title


def test_find_by_id_beginning_or_name(store: SessionStore) -> None:
    for session_id in ("20260101-0900-aaa", "20260101-0900-bbb", "20260202-1000-ccc"):
        store.save(session_id, talk(question("hi")), "tiny")
    store.rename("20260101-0900-aaa", "2026")
    assert store.find("20260101-0900-bbb").id == "20260101-0900-bbb"
    assert store.find("202602").id == "20260202-1000-ccc"
    assert store.find("2026").id == "20260101-0900-aaa"  # a name comes before the beginning of an id
    with pytest.raises(DsvlError, match="2 conversations start with '20260101'"):
        store.find("20260101")
    for nothing in ("", "zzz", "\udcff"):
        with pytest.raises(DsvlError, match="there is no conversation"):
            store.find(nothing)


def test_unknown_key_suggests_the_nearest(store: SessionStore) -> None:
    session_id = store.save(store.create(), talk(question("hi")), "tiny")
    store.rename(session_id, "holiday pictures")
    with pytest.raises(DsvlError) as caught:
        store.load("holliday picture")
    assert "did you mean 'holiday pictures'?" in (caught.value.hint or "")


def test_names_are_unique(store: SessionStore) -> None:
    first = store.save(store.create(), talk(question("hi")), "tiny")
    second = store.save(store.create(), talk(question("ho")), "tiny")
    store.rename(first, "caf\u00e9 \udcff")
    store.rename(first, "caf\u00e9 \udcff")
    assert store.load("caf\u00e9 \udcff").id == first
    for taken in ("caf\u00e9 \udcff", first):
        with pytest.raises(DsvlError, match="another conversation is named"):
            store.rename(second, taken)
    with pytest.raises(DsvlError, match="empty"):
        store.rename(second, " \n")
    with pytest.raises(DsvlError, match="nothing to name"):
        store.rename(store.create(), "new")
    assert store.load(second).name is None


@pytest.mark.parametrize("is_saved", [False, True])
def test_an_id_that_is_drawn_twice_is_given_once(
    store: SessionStore, is_saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = iter("aaaaaaaaabbb")
    monkeypatch.setattr("dsvl_cli.sessions.store.secrets.choice", lambda _: next(letters))
    monkeypatch.setattr("dsvl_cli.sessions.store.time.strftime", lambda _: "20260101-0000")
    first = store.create()
    if is_saved:
        store.save(first, talk(question("one")), "tiny")
    second = store.create()
    store.save(first, talk(question("one")), "tiny")
    store.save(second, talk(question("two")), "tiny")
    assert [store.load(each).conversation.messages[0].text for each in (first, second)] == ["one", "two"]


def test_search_finds_words_anywhere(store: SessionStore) -> None:
    first = store.save(store.create(), talk(question("Où est le CAFÉ?"), answer("the red fox jumps")), "tiny")
    second = store.save(store.create(), talk(question(picture("receipt.jpg"), "总数是多少？")), "tiny")
    third = store.save(store.create(), talk(question("red"), answer("jumps")), "tiny")

    def found(text: str) -> list[str]:
        return [hit.session.id for hit in store.search(text)]

    assert found("café") == found("CAFE\u0301") == [first]
    assert found("jumps red") == [first]  # in one message
    assert found("JUMP") == [third, first]
    assert found("ECEIPT") == found("数是") == [second]
    assert found("EST") == [first]
    assert found("purple") == found(" ") == []


@pytest.mark.parametrize("text", ['"', "'", "*", "AND", "NEAR(a b)", "a-b", "%", "_", "(", "[a", "\\", "\udcff", "\0"])
def test_search_takes_every_text_as_it_is(store: SessionStore, text: str) -> None:
    found = store.save(store.create(), talk(question(f"say {text} now")), "tiny")
    store.save(store.create(), talk(question("xyz")), "tiny")
    (hit,) = store.search(text)
    assert (hit.session.id, hit.excerpt) == (found, f"say {text} now")


def test_excerpt_is_short_and_holds_the_word(store: SessionStore) -> None:
    store.save(store.create(), talk(question("before " * 50 + "needle\n" + "after " * 50)), "tiny")
    (hit,) = store.search("NEEDLE")
    assert "before needle after" in hit.excerpt
    assert hit.excerpt[0] == hit.excerpt[-1] == "…"
    assert len(hit.excerpt) <= 82


def test_delete_takes_its_pictures_along_but_no_other_ones(store: SessionStore) -> None:
    shared, own = picture("s", b"shared"), picture("o", bytes(300_000))
    first = store.save(store.create(), talk(question(shared, own)), "tiny")
    second = store.save(store.create(), talk(question(shared)), "tiny")
    assert store.delete(first).id == first
    assert [session.id for session in store.list()] == [second]
    assert stored_pictures(store.path) == {shared.sha256}
    store.close()
    assert store.path.stat().st_size < 200_000  # the space is given back
    assert everything(store.load(second).conversation) == everything(talk(question(shared)))


def test_two_chats_of_one_session_are_both_kept(path: Path) -> None:
    with SessionStore(path) as one, SessionStore(path) as two:
        session_id = one.save(one.create(), talk(question("hi")), "tiny")
        one.rename(session_id, "mine")
        mine, theirs = one.load("mine").conversation, two.load("mine").conversation
        mine.messages.append(answer("from one"))
        theirs.messages.append(answer("from two"))
        assert one.save(session_id, mine, "tiny") == session_id
        forked = two.save(session_id, theirs, "tiny")
        assert forked != session_id
        theirs.messages.append(question("on"))
        assert two.save(forked, theirs, "tiny") == forked
        assert one.load("mine").conversation == mine
        assert one.load(forked).conversation == theirs
        assert len(one.list()) == 2


def test_a_session_that_was_removed_meanwhile_is_saved_anew(path: Path) -> None:
    conversation = talk(question(picture()), answer("a cat"))
    with SessionStore(path) as chat, SessionStore(path) as other:
        session_id = chat.save(chat.create(), conversation, "tiny")
        other.delete(session_id)
        conversation.messages.append(question("and now?"))
        assert chat.save(session_id, conversation, "tiny") == session_id
        assert everything(other.load(session_id).conversation) == everything(conversation)


CHAT = """
import sys
from pathlib import Path
from dsvl_cli.sessions.store import SessionStore
from tests.sessions.samples import *
store, session_id, turns = SessionStore(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
conversation = talk()
for turn in range(turns):
    conversation.messages += [question(str(turn), picture(data=b"%d" % turn * 3000)), answer("yes")]
    store.save(session_id, conversation, "tiny")
    print(turn, flush=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_that_begin_the_file_and_write_at_once(path: Path) -> None:
    chats = [start(CHAT, path, name, 25) for name in ("a", "b")]
    for chat in chats:
        _, errors = chat.communicate(timeout=60)
        assert (chat.returncode, errors) == (0, "")
    with SessionStore(path) as store:
        for name in ("a", "b"):
            texts = [message.text for message in store.load(name).conversation.messages]
            assert texts == [text for turn in range(25) for text in (str(turn), "yes")]
    assert_sound(path)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011, 0.05])
def test_kill_loses_at_most_the_running_turn(path: Path, delay: float) -> None:
    with start(CHAT, path, "a", 100_000) as chat:
        assert chat.stdout is not None
        told = chat.stdout.readline()
        time.sleep(delay)
        chat.send_signal(signal.SIGKILL)
        told += chat.stdout.read()  # communicate() would overlook what came along with the first line
    last = int(told.split("\n")[-2])
    with SessionStore(path) as store:
        saved = store.load("a").conversation
        assert len(saved.messages) in (2 * (last + 1), 2 * (last + 2))
        assert [picture.data[:1] for picture in saved.pictures] == [
            b"%c" % str(n)[0].encode() for n in range(len(saved.pictures))
        ]
        saved.messages.append(question("still here?"))
        assert store.save("a", saved, "tiny") == "a"
    assert_sound(path)


FULL = """
import resource, sys
from pathlib import Path
from dsvl_cli.errors import DsvlError
from dsvl_cli.sessions.store import SessionStore
from tests.sessions.samples import *
with SessionStore(Path(sys.argv[1])) as store:
    store.save("a", talk(question("small")), "tiny")
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        store.save("a", talk(question("small"), question(picture(data=bytes(1_000_000)))), "tiny")
    except DsvlError as error:
        print(error.message, "|", error.hint)
    assert store.load("a").conversation == talk(question("small"))
    store.save("a", talk(question("small"), question("again")), "tiny")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_is_told_and_hurts_nothing(path: Path) -> None:
    chat = start(FULL, path)
    told, errors = chat.communicate(timeout=60)
    assert (chat.returncode, errors) == (0, "")
    assert "cannot be written" in told
    assert "free some disk space" in told
    with SessionStore(path) as store:
        assert store.load("a").conversation == talk(question("small"), question("again"))
    assert_sound(path)


def test_ten_thousand_sessions_are_listed_and_searched(store: SessionStore) -> None:
    seed = store.save("20260101-0000-bcd", talk(question("number 1")), "tiny")
    store.close()
    connection = sqlite3.connect(store.path)
    with connection:
        columns = "title, model, system, created, updated"
        numbers = "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
        connection.execute(
            f"{numbers} INSERT INTO sessions (id, {columns}, revision, messages, pictures)"
            f" SELECT 's' || i, {columns}, i, 1, 0 FROM n, sessions WHERE id = ?",
            (seed,),
        )
        connection.execute(f"{numbers} INSERT INTO messages SELECT i, 's' || i, 0, 'user', NULL, NULL, NULL FROM n")
        connection.execute(
            f"{numbers} INSERT INTO parts (message, position, text) SELECT i, 0, CAST('number ' || i AS BLOB) FROM n"
        )
    connection.close()
    sessions = store.list()
    assert [session.id for session in sessions] == [*(f"s{i}" for i in range(10000, 1, -1)), seed]
    assert len(store.search("number")) == 10000
    assert [hit.session.id for hit in store.search("number 9999")] == ["s9999"]
    assert store.load("s777").conversation == talk(question("number 777"))


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"HOME": "/h"}, "/h/.local/share/dsvl"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "/x"}, "/x/dsvl"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "x"}, "/h/.local/share/dsvl"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "/x", "DSVL_DATA_DIR": "/d"}, "/d"),
        ("linux", {"HOME": "/h", "DSVL_DATA_DIR": ""}, "/h/.local/share/dsvl"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Application Support/dsvl"),
        ("darwin", {"HOME": "/h", "XDG_DATA_HOME": "/x"}, "/x/dsvl"),
        ("win32", {"HOME": "/h", "LOCALAPPDATA": "/l"}, "/l/dsvl"),
        ("darwin", {"HOME": "/h", "XDG_DATA_HOME": "x"}, "/h/Library/Application Support/dsvl"),
        ("win32", {"HOME": "/h"}, "/h/AppData/Local/dsvl"),
        ("win32", {"HOME": "/h", "APPDATA": "/a", "LOCALAPPDATA": "/l", "XDG_DATA_HOME": "/x"}, "/x/dsvl"),
    ],
)
def test_default_store_path(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], folder: str
) -> None:
    pretend(monkeypatch, platform, variables)
    assert default_store_path(os.environ) == PurePath(folder, "sessions.sqlite3")


def test_numbers_of_dropped_pictures_are_kept(path: Path) -> None:
    conversation = talk(question("hi", picture("a"), picture("c", data=b"c")))
    conversation.dropped = {2, 5}
    with SessionStore(path) as store:
        store.save("a", conversation, "tiny")
        assert store.load("a").conversation.dropped == {2, 5}
        conversation.dropped.add(6)
        store.save("a", conversation, "tiny")
    with SessionStore(path) as store:
        assert store.load("a").conversation == conversation

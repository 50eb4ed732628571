from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING

import pyte
import pytest

from dsvl_cli.app.sessions import (
    list_sessions,
    remove_sessions,
    rename_session,
    search_sessions,
    show_session,
    write_session,
)
from dsvl_cli.errors import DsvlError, UsageError
from dsvl_cli.sessions.store import SessionStore, default_store_path
from dsvl_cli.terminal.console import Console, Environment
from tests.sessions.samples import answer, picture, question, talk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EVIL = "\x1b]0;owned\x07\u202e[/b] \udcff"


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """An environment with a folder of its own for conversations."""
    return {"DSVL_DATA_DIR": str(tmp_path / "data")}


@pytest.fixture
def store(variables: dict[str, str]) -> Iterator[SessionStore]:
    with SessionStore(default_store_path(variables)) as store:
        store.save("20260101-0900-bcd", talk(question(picture("cat.png"), "What is this?"), answer("A cat.")), "tiny")
        store.rename("20260101-0900-bcd", "my cat")
        store.save("20260102-1000-xyz", talk(question(f"a {EVIL} b"), answer("猫" * 30)), "1.3b")
        yield store


@pytest.fixture
def console(variables: dict[str, str]) -> Console:
    """A console into pipes."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    return Console(Environment(io.StringIO(), stdout, stderr, variables))


def written(stream: object) -> str:
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode("utf-8", "surrogateescape")


def screen(show: Callable[[Console], None], variables: dict[str, str], columns: int = 80) -> tuple[list[str], str]:
    """What a terminal shows of a command's stdout, and the characters that were sent to it."""
    import fcntl
    import pty
    import struct
    import termios

    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as stdout:
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        terminal = {**variables, "TERM": "xterm-256color", "NO_COLOR": "1"}
        show(Console(Environment(io.StringIO(), stdout, io.StringIO(), terminal)))
        stdout.write("\0")
        stdout.flush()
        data = b""
        while not data.endswith(b"\0"):
            data += os.read(reader, 4096)
    os.close(reader)
    sent = data[:-1].decode()
    display = pyte.Screen(columns, 30)
    pyte.Stream(display).feed(sent)
    return [line.rstrip() for line in display.display if line.strip()], sent


def test_list_in_a_pipe(store: SessionStore, console: Console) -> None:
    list_sessions(console)
    rows = [line.split("\t") for line in written(console.environment.stdout).splitlines()]
    assert [[row[0], row[1], *row[3:]] for row in rows] == [
        ["20260102-1000-xyz", "", "2", "0", "1.3b", f"a {EVIL} b"],
        ["20260101-0900-bcd", "my cat", "2", "1", "tiny", "What is this?"],
    ]
    assert written(console.environment.stderr) == ""


def test_list_as_json(store: SessionStore, console: Console) -> None:
    list_sessions(console, as_json=True, limit=1)
    (line,) = written(console.environment.stdout).splitlines()
    value = json.loads(line)
    assert (value["id"], value["name"], value["title"]) == ("20260102-1000-xyz", None, f"a {EVIL} b")
    assert (value["messages"], value["pictures"], value["model"]) == (2, 0, "1.3b")
    assert set(value) == {"id", "name", "title", "model", "created", "updated", "messages", "pictures"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_list_on_a_terminal(store: SessionStore, variables: dict[str, str], columns: int) -> None:
    (head, *rows), sent = screen(list_sessions, variables, columns)
    assert head.split() == (["Id", "Conversation"] if columns == 40 else ["Id", "Changed", "Messages", "Conversation"])
    assert [row.split()[0] for row in rows] == ["20260102-1000-xyz", "20260101-0900-bcd"]
    column = head.index("Conversation")
    assert rows[0][column:].startswith("a ␛]0;owned␇\ufffd")
    assert rows[1][column:] in ("my cat: What is this?", "my cat: What is thi…")
    assert not {"\x1b", "\x07", "\u202e"} & set(sent)


def test_an_empty_list_is_empty(console: Console) -> None:
    list_sessions(console)
    assert written(console.environment.stdout) == written(console.environment.stderr) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_an_empty_list_on_a_terminal_says_so_on_stderr(variables: dict[str, str]) -> None:
    said: list[object] = []

    def show(console: Console) -> None:
        list_sessions(console)
        said.append(console.environment.stderr)

    assert screen(show, variables) == ([], "")
    (stderr,) = said
    assert isinstance(stderr, io.StringIO)
    assert stderr.getvalue() == "no saved conversations yet\n"


def test_show_in_a_pipe_is_exact(store: SessionStore, console: Console) -> None:
    show_session(console, "my cat")
    shown = written(console.environment.stdout)
    assert shown.startswith("# my cat\n\n20260101-0900-bcd, tiny, ")
    assert shown.endswith("\n\n## You\n\n[picture 1: cat.png, 4x3]\n\nWhat is this?\n\n## Model\n\nA cat.\n")
    show_session(console, "20260102")
    assert f"\na {EVIL} b\n" in written(console.environment.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_show_on_a_terminal_is_harmless(store: SessionStore, variables: dict[str, str]) -> None:
    lines, sent = screen(lambda console: show_session(console, "20260102"), variables)
    assert "a ␛]0;owned␇\ufffd[/b] \\xff b" in lines
    assert not {"\x1b", "\x07", "\u202e"} & set(sent)


def test_search(store: SessionStore, console: Console) -> None:
    search_sessions(console, "CAT")
    assert written(console.environment.stdout) == "20260101-0900-bcd\tmy cat\tcat.png What is this?\n"
    search_sessions(console, "dog")
    assert written(console.environment.stderr) == "no conversation mentions dog\n"


def test_search_as_json(store: SessionStore, console: Console) -> None:
    search_sessions(console, "owned", as_json=True)
    value = json.loads(written(console.environment.stdout))
    assert (value["id"], value["excerpt"]) == ("20260102-1000-xyz", f"a {EVIL} b")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_search_on_a_terminal_is_harmless(store: SessionStore, variables: dict[str, str]) -> None:
    lines, sent = screen(lambda console: search_sessions(console, "owned"), variables)
    assert lines[0].startswith("20260102-1000-xyz  a ␛]0;owned")
    assert lines[1].startswith("  a ␛]0;owned")
    assert not {"\x1b", "\x07", "\u202e"} & set(sent)


def test_write(store: SessionStore, console: Console, tmp_path: Path) -> None:
    path = tmp_path / "cat.json"
    write_session(console, "my cat", path, embed=False)
    assert json.loads(path.read_bytes())["id"] == "20260101-0900-bcd"
    assert (tmp_path / "cat_pictures" / "1.png").exists()
    assert written(console.environment.stderr) == f"wrote {path}\n"
    assert written(console.environment.stdout) == ""
    with pytest.raises(DsvlError, match="already exists"):
        write_session(console, "my cat", path)


def test_remove(store: SessionStore, console: Console) -> None:
    with pytest.raises(DsvlError, match="there is no conversation 'nobody'"):
        remove_sessions(console, ["my cat", "nobody"], yes=True)
    assert len(store.list()) == 2
    remove_sessions(console, ["my cat", "20260101", "20260102-1000-xyz"], yes=True)
    assert store.list() == ()
    told = written(console.environment.stderr).splitlines()
    assert told[0] == "removed 20260101-0900-bcd  my cat: What is this?"
    assert told[1].startswith("removed 20260102-1000-xyz  a ␛]0;owned")
    assert len(told) == 2
    assert written(console.environment.stdout) == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "left"), [("y\n", 1), ("YES\n", 1), ("n\n", 2), ("\n", 2), ("", 2), ("yesterday\n", 2), ("y", 1)]
)
def test_remove_asks_on_a_terminal(store: SessionStore, variables: dict[str, str], typed: str, left: int) -> None:
    stdout, stderr = io.StringIO(), Terminal()
    remove_sessions(Console(Environment(Terminal(typed), stdout, stderr, variables)), ["my cat"])
    assert len(store.list()) == left
    asked = stderr.getvalue()
    assert "20260101-0900-bcd  my cat: What is this? (2 messages)" in asked
    assert "remove this conversation for good? [y/N]" in asked
    assert ("nothing is removed" in asked) == (left == 2)
    assert stdout.getvalue() == ""


def test_remove_needs_yes_without_a_terminal(store: SessionStore, console: Console) -> None:
    with pytest.raises(UsageError, match="no terminal"):
        remove_sessions(console, ["my cat"])
    assert len(store.list()) == 2


def test_rename(store: SessionStore, console: Console) -> None:
    rename_session(console, "20260102", "the  other one")
    assert store.find("the other one").id == "20260102-1000-xyz"
    rename_session(console, "my cat", "Tom")
    assert store.find("Tom").id == "20260101-0900-bcd"
    assert "20260101-0900-bcd is now named Tom" in written(console.environment.stderr)
    with pytest.raises(DsvlError, match="another conversation is named"):
        rename_session(console, "20260102", "Tom")

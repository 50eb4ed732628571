from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from dsvl_cli.terminal.chat.input.completion import ChatCompleter
from dsvl_cli.terminal.chat.slash.registry import COMMANDS
from tests.terminal.fake_model import Desk, picture_bytes


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("cat.png", "my cat.png", ".hidden.png", "notes.txt", "it's.JPG"):
        (tmp_path / name).write_bytes(picture_bytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.png").write_bytes(picture_bytes())
    desk = Desk()
    desk.do("cat.png what?", "/save my-talk")
    return desk


def complete(desk: Desk, text: str) -> set[str]:
    """Return the lines that accepting a completion would make."""
    document = Document(text, len(text))
    completions = ChatCompleter(desk.chat).get_completions(document, CompleteEvent())
    return {text[: len(text) + each.start_position] + each.text for each in completions}


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        ("/s", {"/see", "/set", "/system", "/schema", "/stats", "/save"}),
        ("/xyz", set()),
        ("/set te", {"/set temperature"}),
        ("/set overflow ", {"/set overflow error", "/set overflow drop-oldest", "/set overflow default"}),
        ("/set top_p 0.9", {"/set top_p 0.95"}),
        ("/drop ", {"/drop 1", "/drop all", "/drop staged"}),
        ("/crop 1 ", {"/crop 1 0,0,8,6"}),
        ("/model o", {"/model other"}),
        ("/load ", {"/load my-talk"}),
        ("/help und", {"/help undo"}),
        ("/image ", {"/image cat.png", "/image my\\ cat.png", "/image it\\'s.JPG", "/image folder/"}),
        ("/image my", {"/image my\\ cat.png"}),
        ("/image cat.png my\\ c", {"/image cat.png my\\ cat.png"}),
        ("/image folder/", {"/image folder/inner.png"}),
        ("/export n", {"/export notes.txt"}),
        ("@c", {"@cat.png"}),
        ("what is in @folder/i", {"what is in @folder/inner.png"}),
        ("@~/c", {"@~/cat.png"}),
        ("@.h", {"@.hidden.png"}),
        ("@gone/", set()),
        ("mail me@c", set()),
        ("plain words", set()),
    ],
)
def test_what_is_offered(desk: Desk, typed: str, lines: set[str]) -> None:
    assert complete(desk, typed) == lines


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        ("folder/", {"folder/inner.png"}),
        ("what is in ca", {"what is in cat.png"}),
        ("my", {"my\\ cat.png"}),
        ("plain words", set()),
        ("", set()),
        ("what ", set()),
    ],
)
def test_tab_completes_any_word_that_begins_a_path(desk: Desk, typed: str, lines: set[str]) -> None:
    event = CompleteEvent(completion_requested=True)
    completions = ChatCompleter(desk.chat).get_completions(Document(typed, len(typed)), event)
    assert {typed[: len(typed) + each.start_position] + each.text for each in completions} == lines


def test_all_commands_are_offered_with_their_help(desk: Desk) -> None:
    document = Document("/", 1)
    offered = list(ChatCompleter(desk.chat).get_completions(document, CompleteEvent()))
    assert [each.text for each in offered] == [command.name for command in COMMANDS]
    assert [each.display_meta_text for each in offered] == [command.help for command in COMMANDS]


def test_what_is_completed_is_then_found(desk: Desk) -> None:
    (line,) = complete(desk, "@my")
    desk.do(f"{line} and this?")
    assert desk.chat.dialogue.messages[-2].pictures[0].name == "my cat.png"


def test_names_of_files_are_harmless(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "x\x1b[31m.png").write_bytes(picture_bytes())
    completions = ChatCompleter(desk.chat).get_completions(Document("@x", 2), CompleteEvent())
    assert "\x1b" not in next(iter(completions)).display_text

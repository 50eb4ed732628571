"""The line editor and its keys, on a pipe in place of a keyboard; what it draws is looked at in test_terminal.py."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.progress import Listener
from dsvl_cli.errors import DsvlError, ExitStatus
from dsvl_cli.terminal.chat.input.line_editor import LineEditor
from dsvl_cli.terminal.chat.input.repl import Repl
from tests.terminal.fake_model import Desk, FakeModel, picture_bytes

ALT_ENTER, CTRL_C, CTRL_D, CTRL_J, CTRL_R, CTRL_V, UP, TAB = (
    "\x1b\r",
    "\x03",
    "\x04",
    "\n",
    "\x12",
    "\x16",
    "\x1b[A",
    "\t",
)

ESCAPE = "\x1b"
PAUSE = "<pause>"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as keys:
        yield keys


def run(desk: Desk, keys: PipeInput, typed: str, history: Path | None = None, pause: float = 1.0) -> list[str]:
    """Type keys, then Ctrl-D; return the questions that were asked.

    At PAUSE the prompt gets time, in seconds, to read its history or to list completions.
    """
    editor = LineEditor(desk.chat, history, source=keys, display=DummyOutput())
    first, *later = (typed + CTRL_D).split(PAUSE)
    keys.send_text(first)
    for number, piece in enumerate(later, 1):
        threading.Timer(pause * number, keys.send_text, (piece,)).start()
    assert Repl(desk.chat, editor).run() == ExitStatus.OK
    return [message.text for message in desk.chat.dialogue.messages if message.role == "user"]


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("hello\r", ["hello"]),
        ("one\rtwo\r", ["one", "two"]),
        (f"one{ALT_ENTER}two\r", ["one\ntwo"]),
        (f"one{CTRL_J}two\r", ["one\ntwo"]),
        ('"""\rone\rtwo\r"""\r', ["one\ntwo"]),
        ("\x1b[200~one\r\ntwo\nthree\x1b[201~\r", ["one\ntwo\nthree"]),
        (f"forget this{CTRL_C}keep\r", ["keep"]),
        (f"{CTRL_C}stay\r", ["stay"]),
        (f"first\r{PAUSE}{UP}\r", ["first", "first"]),
        (f"alpha\rbeta\r{PAUSE}{CTRL_R}alp\r\r", ["alpha", "beta", "alpha"]),
        (f"/he{TAB}\rq\r", ["q"]),
        ('see """\rone\rtwo\r"""\r', ["see \none\ntwo"]),
        ("help\rexit\rnever\r", []),
        (f"\x1b[200~{'x' * 10_000}\x1b[201~\r", ["x" * 10_000]),
        ("\r  \r", []),
        ("ünï 世界 🙂\r", ["ünï 世界 🙂"]),
    ],
)
def test_what_keys_come_to(keys: PipeInput, typed: str, asked: list[str]) -> None:
    assert run(Desk(), keys, typed) == asked


def test_ctrl_c_twice_at_an_empty_prompt_leaves(keys: PipeInput) -> None:
    desk = Desk()
    assert run(desk, keys, f"{CTRL_C}{CTRL_C}never\r") == []
    assert "Ctrl-C again" in desk.err


def test_ctrl_c_once_in_a_while_does_not(keys: PipeInput) -> None:
    assert run(Desk(), keys, f"{CTRL_C}one\r{CTRL_C}two\r") == ["one", "two"]


def test_exit_leaves(keys: PipeInput) -> None:
    assert run(Desk(), keys, "one\r/bye\rnever\r") == ["one"]


def test_the_prompt_leaves_ctrl_c_to_the_chat(keys: PipeInput) -> None:
    handlers = []
    desk = Desk(FakeModel(before_chunk=lambda number: handlers.append(signal.getsignal(signal.SIGINT))))
    before = signal.getsignal(signal.SIGINT)
    run(desk, keys, "one\rtwo\r")
    assert {getattr(handler, "__self__", None) for handler in handlers} == {desk.chat.ctrl_c}
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_v_takes_a_picture_from_the_clipboard(keys: PipeInput) -> None:
    desk = Desk()
    run(desk, keys, f"what is {CTRL_V}this?\r")
    question = desk.chat.dialogue.messages[0]
    assert (question.text, [picture.name for picture in question.pictures]) == ("what is this?", ["clipboard"])


def test_an_empty_clipboard_is_told(keys: PipeInput) -> None:
    desk = Desk()

    def paste() -> Picture:
        raise DsvlError("there is no picture in the clipboard", "copy one")

    sources = desk.chat.services.sources
    object.__setattr__(
        desk.chat.services,
        "sources",
        type(sources)(sources.read, sources.expand, sources.crop, paste, sources.extensions),
    )
    assert run(desk, keys, f"what{CTRL_V}?\r") == ["what?"]
    assert "error: there is no picture in the clipboard" in desk.err


def test_a_dropped_file_is_sent_with_its_question(keys: PipeInput, tmp_path: Path) -> None:
    (tmp_path / "my cat.png").write_bytes(picture_bytes())
    desk = Desk()
    run(desk, keys, f"\x1b[200~'{tmp_path}/my cat.png' \x1b[201~what?\r")
    assert desk.chat.dialogue.messages[0].pictures[0].name == f"{tmp_path}/my cat.png"


def test_what_was_typed_is_there_in_the_next_chat(keys: PipeInput, tmp_path: Path) -> None:
    run(Desk(), keys, "remember me\r", tmp_path / "history")
    assert run(Desk(), keys, f"{PAUSE}{UP}\r", tmp_path / "history") == ["remember me"]


def test_after_an_error_the_line_is_free_for_a_command_and_the_message_in_the_history(keys: PipeInput) -> None:
    desk = Desk(FakeModel([DsvlError("not now")]))
    assert run(desk, keys, f"again\r/set temperature 1\r{PAUSE}{UP}{UP} please\r") == ["again please"]


def test_a_load_error_is_told_while_the_prompt_is_open(keys: PipeInput) -> None:
    def load(name: str, listener: Listener) -> FakeModel:
        time.sleep(0.2)
        raise DsvlError("not to be had")

    desk = Desk(load=load)
    editor = LineEditor(desk.chat, None, source=keys, display=DummyOutput())
    told: list[str] = []

    def leave() -> None:
        deadline = time.monotonic() + 10
        while "not to be had" not in "".join(told) and time.monotonic() < deadline:
            time.sleep(0.02)
            told.append(desk.err)
        keys.send_text(CTRL_D)

    threading.Thread(target=leave).start()
    Repl(desk.chat, editor).run()
    assert "error: not to be had" in "".join(told)


def test_a_model_that_comes_is_counted_with_while_the_prompt_is_open(keys: PipeInput) -> None:
    go_on = threading.Event()

    def load(name: str, listener: Listener) -> FakeModel:
        go_on.wait(10)
        return FakeModel()

    desk = Desk(load=load)
    editor = LineEditor(desk.chat, None, source=keys, display=DummyOutput())
    seen: list[int | None] = [desk.chat.context.used_tokens]

    def leave() -> None:
        go_on.set()
        deadline = time.monotonic() + 10
        while desk.chat.context.used_tokens is None and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append(desk.chat.context.used_tokens)
        keys.send_text(CTRL_D)

    threading.Timer(0.2, leave).start()
    Repl(desk.chat, editor).run()
    assert seen == [None, 0]


class DumbTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_dumb_terminal_gets_an_echo_of_what_is_added_and_the_line_anew_after_other_changes(keys: PipeInput) -> None:
    desk = Desk(variables={"TERM": "dumb"})
    screen = DumbTerminal()
    object.__setattr__(desk.environment, "stdout", screen)
    assert run(desk, keys, "hexx\x7f\x7fllo\r") == ["hello"]
    assert screen.getvalue() == "> hexx\n> hex\n> hello\nYou said: hello\n> \n"


@pytest.mark.skipif(not hasattr(signal, "SIGTSTP"), reason="no Ctrl-Z")
def test_a_dumb_terminal_gets_the_line_again_after_ctrl_z_and_fg(
    keys: PipeInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(variables={"TERM": "dumb"})
    screen = DumbTerminal()
    object.__setattr__(desk.environment, "stdout", screen)
    monkeypatch.setattr(os, "kill", lambda _process, _number: screen.write("\n$ fg\ndsvl chat\n"))
    assert run(desk, keys, f"hel\x1a{PAUSE}lo\r") == ["hello"]
    assert screen.getvalue().startswith("> hel\n$ fg\ndsvl chat\n> hello\n")


def test_a_dumb_terminal_takes_a_long_line(keys: PipeInput) -> None:
    desk = Desk(FakeModel(["ok"]), variables={"TERM": "dumb"})
    screen = DumbTerminal()
    object.__setattr__(desk.environment, "stdout", screen)
    assert run(desk, keys, "y" * 2_000 + "\r") == ["y" * 2_000]
    assert screen.getvalue() == f"> {'y' * 2_000}\nok\n> \n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("pics/a.png", "pics/b.png", "pics/deep/c.png", "only.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(picture_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "pictures"),
    [
        # The only folder that fits is taken, and what is in it is listed.
        (f"@pi{PAUSE}{TAB}{PAUSE}{TAB}{PAUSE}\r what?\r", ["pics/a.png"]),
        (f"@pi{PAUSE}{TAB}{PAUSE}{TAB}{TAB}{PAUSE}\r what?\r", ["pics/b.png"]),
        (f"/image pi{PAUSE}{TAB}{PAUSE}{TAB}{PAUSE}\r\rwhat?\r", ["pics/a.png"]),
        # So is a folder that is selected.
        (f"@pics/{PAUSE}{TAB}{TAB}{TAB}{PAUSE}{TAB}{PAUSE}{TAB}{PAUSE}\r what?\r", ["pics/deep/c.png"]),
        # In a word without @, a second Tab lists it, as in shells.
        (f"pi{TAB}{PAUSE}{TAB}{PAUSE}{TAB}{PAUSE}\r what?\r", ["pics/a.png"]),
        (f"on{TAB}{PAUSE} what?\r", ["only.png"]),
    ],
)
def test_tab_goes_through_folders_and_enter_takes_what_is_selected(
    keys: PipeInput, tree: Path, typed: str, pictures: list[str]
) -> None:
    desk = Desk()
    assert run(desk, keys, typed, pause=0.3) == ["what?"]
    assert [picture.name for picture in desk.chat.dialogue.messages[0].pictures] == pictures


def test_escape_closes_the_list_and_takes_the_selection_back(keys: PipeInput, tree: Path) -> None:
    desk = Desk()
    run(desk, keys, f"/image pics/{PAUSE}{TAB}{TAB}{PAUSE}{ESCAPE}{PAUSE}a.png\rwhat?\r", pause=0.4)
    assert [picture.name for picture in desk.chat.dialogue.messages[0].pictures] == ["pics/a.png"]


def test_a_message_with_a_picture_that_is_not_there_is_in_the_line_again(keys: PipeInput, tree: Path) -> None:
    desk = Desk()
    backspaces = "\x7f" * len("nope.png")
    assert run(desk, keys, f"what is @nope.png\r{PAUSE}{backspaces}only.png\r", pause=0.4) == ["what is"]
    assert "nope.png: " in desk.err

from __future__ import annotations

import os
import signal

import pytest

from dsvl_cli.errors import ExitStatus
from dsvl_cli.terminal.chat.input.repl import Repl
from tests.terminal.fake_model import Desk, FakeModel


class Typed:
    """Lines as they are typed; None is Ctrl-C at the prompt."""

    def __init__(self, *lines: str | None) -> None:
        self.left = list(lines)

    def read(self) -> str:
        if not self.left:
            raise EOFError
        line = self.left.pop(0)
        if line is None:
            raise KeyboardInterrupt
        return line


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_between_two_prompts_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    monkeypatch.setattr(desk.chat, "tell", lambda *lines: press())
    lines = Typed(None, "never")
    assert Repl(desk.chat, lines).run() == ExitStatus.OK
    assert lines.left == ["never"]


def test_ctrl_c_after_the_last_word_is_none_at_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()

    def save(session_id: str, *_: object) -> str:
        press()
        return session_id

    monkeypatch.setattr(desk.store, "save", save)
    assert Repl(desk.chat, Typed("one", "two")).run() == ExitStatus.OK
    assert desk.texts() == ["one", "You said: one", "two", "You said: two"]
    assert "Ctrl-C" not in desk.err


def test_a_bug_in_an_answer_is_reported_and_what_was_said_is_kept() -> None:
    def fail(number: int) -> None:
        if number == 1:
            raise ZeroDivisionError

    desk = Desk(FakeModel(["one two", "yes"], before_chunk=fail))
    Repl(desk.chat, Typed("count", "more")).run()
    assert "the answer failed: ZeroDivisionError" in desk.err
    assert desk.texts() == ["count", "one", "more", "yes"]
    assert desk.store.kept["id1"].conversation.messages[1].text == "one"


def test_ctrl_c_ends_a_script() -> None:
    desk = Desk(FakeModel(["one two"], before_chunk=lambda number: press() if number else None), scripted=True)
    with pytest.raises(KeyboardInterrupt):
        Repl(desk.chat, Typed("count", "never")).run()
    assert desk.texts() == ["count", "one"]

from __future__ import annotations

import io
import json

from dsvl_cli.engine.conversation import Message, Stats
from dsvl_cli.errors import DsvlError, ExitStatus
from dsvl_cli.terminal.chat.input.repl import Repl
from dsvl_cli.terminal.chat.script import NoAnswer, ScriptLines, json_writer, turn_values
from dsvl_cli.terminal.chat.services import TurnRecord
from tests.terminal.fake_model import Desk, FakeModel, make_picture


def run(desk: Desk, text: str) -> ExitStatus:
    return Repl(desk.chat, ScriptLines(io.StringIO(text))).run()


def test_every_line_is_a_message_and_every_answer_a_line() -> None:
    desk = Desk(FakeModel(["one", "two\n\nlines\n\n", "", "four"]), scripted=True)
    assert run(desk, "a\n\n   \nb\nc\nd") == ExitStatus.OK
    assert desk.out == "one\ntwo\n\nlines\n\nfour\n"
    assert desk.err == ""


def test_commands_are_lines_too() -> None:
    desk = Desk(scripted=True)
    run(desk, "one\n/undo\n/set max_new_tokens 2\ntwo\n/exit\nthree\n")
    assert desk.out == "You said: one\nYou said:\n"
    assert desk.texts() == ["two", "You said:"]


def test_an_error_is_a_line_on_stderr_and_the_status_at_the_end() -> None:
    desk = Desk(FakeModel([DsvlError("no answer today"), "fine"]), scripted=True)
    assert run(desk, "one\n/nonsense\ntwo\n") == ExitStatus.ERROR
    assert desk.out == "fine\n"
    assert desk.err.count("error: ") == 2


def test_a_picture_that_fails_is_told_and_nothing_is_asked_without_it() -> None:
    desk = Desk(scripted=True)
    status = Repl(desk.chat, ScriptLines(io.StringIO("hello\n"))).run(["gone.png", "gone too.png"])
    assert status == ExitStatus.ERROR
    assert desk.err.count("error: ") == 2
    assert desk.out == ""
    assert desk.model.asked == []


def test_a_block_is_one_message() -> None:
    desk = Desk(scripted=True)
    run(desk, '"""\none\ntwo\n"""\nthree\n"""never\nended')
    assert [message.text for message in desk.chat.dialogue.messages if message.role == "user"] == [
        "one\ntwo",
        "three",
        "never\nended",
    ]


def test_bytes_that_are_no_utf8_do_not_end_it() -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfone\r\nt\xffo\r\n"), encoding="ascii")
    lines = ScriptLines(stream)
    assert [lines.read(), lines.read()] == ["one", "t\ufffdo"]


def test_json_is_one_object_a_turn() -> None:
    desk = Desk(scripted=True)
    object.__setattr__(desk.chat.services, "open_answer", NoAnswer)
    object.__setattr__(desk.chat.services, "on_turn", json_writer(desk.console))
    desk.chat.attach([make_picture("bad\udcff.png")])
    assert "bad" in desk.err
    run(desk, "ünï\nand?\n")
    first, second = map(json.loads, desk.out.splitlines())
    assert first["text"] == "You said: ünï"
    assert first["pictures"] == ["bad\ufffd.png"]
    assert (first["role"], first["finish_reason"], first["model"]) == ("assistant", "stop", "fake")
    assert first["stats"]["generated_tokens"] == 3
    assert (second["question"], second["pictures"]) == ("and?", [])


def test_a_turn_without_figures_has_none() -> None:
    record = TurnRecord(Message("user", ("a",)), Message("assistant", ("b",)), "m", None, "the context is full")
    assert turn_values(record)["stats"] is None
    assert turn_values(record)["notice"] == "the context is full"


def test_rates_are_among_the_figures() -> None:
    record = TurnRecord(Message("user", ("a",)), Message("assistant", ("b",)), "m", Stats(1, 0, 1.0, 5, 2.0), None)
    assert turn_values(record)["stats"]["tokens_per_second"] == 2.0

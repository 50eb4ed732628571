"""What a chat does with lines and pictures, on a fake model."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from dsvl_cli.engine.conversation import Conversation, Message
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.progress import Listener
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.chat.chat import Chat
from dsvl_cli.terminal.chat.conversation_store import NoStore
from dsvl_cli.terminal.chat.settings import ChatSettings
from tests.terminal.fake_model import Desk, FakeModel, Kept, make_picture, picture_bytes, token_id


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture_bytes(colour="red" if name == "a.png" else "blue"))
    return tmp_path


def press_ctrl_c_at(*places: int) -> FakeModel:
    """Return a model in whose answers Ctrl-C is pressed before the chunk of that number, one answer after another."""
    left = list(places)

    def before_chunk(number: int) -> None:
        if left and number == left[0]:
            left.pop(0)
            os.kill(os.getpid(), signal.SIGINT)

    return FakeModel(before_chunk=before_chunk)


def names(message: Message) -> list[str]:
    return [part if isinstance(part, str) else part.name for part in message.parts]


def test_a_message_is_answered_and_both_are_kept() -> None:
    desk = Desk(FakeModel(["hi there"]))
    assert desk.do("hello") == ""
    assert desk.out == "hi there\n"
    assert desk.chat.dialogue.messages == [
        Message("user", ("hello",)),
        Message("assistant", ("hi there",), (token_id("hi"), token_id(" there")), "fake-1", "stop"),
    ]
    assert desk.store.kept["id1"].conversation.messages == desk.chat.dialogue.messages


def test_the_model_hears_the_whole_conversation() -> None:
    desk = Desk()
    desk.do("one", "two")
    conversation, _ = desk.model.asked[1]
    assert [message.text for message in conversation.messages] == ["one", "You said: one", "two"]


def test_named_pictures_come_before_the_text_and_are_gone_from_the_stage(folder: Path) -> None:
    desk = Desk()
    told = desk.do("a.png b.png What differs?")
    assert names(desk.model.asked[0][0].messages[0]) == ["a.png", "b.png", "What differs?"]
    assert "[1] a.png (8x6)" in told
    assert desk.chat.dialogue.attached == []


def test_a_picture_alone_waits_for_the_next_message(folder: Path) -> None:
    desk = Desk()
    desk.do("a.png")
    assert desk.model.asked == []
    desk.do("what is it?")
    assert names(desk.model.asked[0][0].messages[0]) == ["a.png", "what is it?"]


def test_attached_pictures_come_before_those_within_a_sentence(folder: Path) -> None:
    desk = Desk()
    desk.do("a.png", "is b.png the same?")
    assert names(desk.model.asked[0][0].messages[0]) == ["a.png", "is b.png: ", "b.png", " the same?"]


def test_marks_that_do_not_match_leave_everything_as_it_was(folder: Path) -> None:
    desk = Desk()
    told = desk.do("a.png", "is <image> like <image>?")
    assert "error: " in told
    assert desk.chat.dialogue.messages == []
    assert len(desk.chat.dialogue.attached) == 1
    assert desk.chat.draft == ""


def test_ctrl_c_keeps_what_was_said() -> None:
    model = press_ctrl_c_at(2)
    model.answers = ["one two three four", "fine"]
    desk = Desk(model)
    told = desk.do("count")
    assert "/continue" in told
    answer = desk.chat.dialogue.messages[-1]
    assert (answer.text, answer.finish_reason) == ("one two", "interrupted")
    assert answer.token_ids == (token_id("one"), token_id(" two"))
    assert desk.store.kept["id1"].conversation.messages[-1] == answer
    desk.do("next")
    assert desk.texts() == ["count", "one two", "next", "fine"]


def test_ctrl_c_takes_a_literal_message_back_as_a_literal_one() -> None:
    desk = Desk(press_ctrl_c_at(0))
    desk.do("/text is nope.png a good name?")
    assert desk.chat.draft == "/text is nope.png a good name?"


def test_ctrl_c_before_the_first_word_takes_the_message_back(folder: Path) -> None:
    desk = Desk(press_ctrl_c_at(0))
    told = desk.do("a.png what?")
    assert "stopped" in told
    assert desk.texts() == []
    assert desk.chat.draft == "a.png what?"
    assert desk.chat.dialogue.attached == []
    assert desk.out == ""
    assert desk.store.kept == {}


def test_ctrl_c_between_two_pieces_loses_no_text() -> None:
    desk = Desk(FakeModel(["one two three"]))
    pressed: list[str | bool] = []

    class Display:
        def write(self, text: str) -> None:
            if not pressed:
                os.kill(os.getpid(), signal.SIGINT)
            pressed.append(text)

        def close(self, interrupted: bool = False) -> None:
            pressed.append(interrupted)

    object.__setattr__(desk.chat.services, "open_answer", Display)
    desk.do("count")
    assert pressed == ["one", True]
    assert desk.chat.dialogue.messages[-1].text == "one"
    assert desk.model.closed == 1


def test_an_error_before_the_answer_leaves_the_stage_as_it_was(folder: Path) -> None:
    desk = Desk(FakeModel([DsvlError("not now")]))
    desk.do("b.png", "a.png what?")
    assert [picture.name for picture in desk.chat.dialogue.attached] == ["b.png"]
    desk.do("a.png what?")
    assert [picture.name for picture in desk.chat.dialogue.messages[0].pictures] == ["b.png", "a.png"]
    assert desk.chat.dialogue.attached == []


def test_an_error_in_an_answer_keeps_what_was_said() -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise DsvlError("out of memory", "use a smaller model")

    desk = Desk(FakeModel(["one two three"], before_chunk=fail))
    told = desk.do("count")
    assert "error: out of memory" in told
    assert desk.chat.dialogue.messages[-1].text == "one two"
    assert desk.chat.dialogue.messages[-1].finish_reason == "interrupted"


def test_being_terminated_in_an_answer_saves_what_was_said() -> None:
    def terminate(number: int) -> None:
        if number == 1:
            sys.exit(143)

    desk = Desk(FakeModel(["one two"], before_chunk=terminate))
    with pytest.raises(SystemExit):
        desk.do("count")
    assert [message.text for message in desk.store.kept["id1"].conversation.messages] == ["count", "one"]


def test_going_on_joins_the_pieces() -> None:
    desk = Desk(FakeModel(["one two three", " four"]), settings=ChatSettings(SamplingParams(max_new_tokens=2)))
    desk.do("count")
    assert desk.chat.dialogue.messages[-1].finish_reason == "length"
    desk.do("/continue")
    answer = desk.chat.dialogue.messages[-1]
    assert (answer.text, answer.finish_reason) == ("one two four", "stop")
    assert answer.token_ids == tuple(token_id(piece) for piece in ("one", " two", " four"))
    assert desk.out == "one two\n four\n"
    assert "complete" in desk.do("/continue")


def test_retry_draws_with_another_seed_and_some_temperature() -> None:
    desk = Desk(FakeModel(["first", "second", "third"]))
    told = desk.do("say", "/retry")
    assert desk.texts() == ["say", "second"]
    sampling = desk.model.asked[1][1]
    assert (sampling.temperature, sampling.seed is not None) == (0.7, True)
    assert "0.7" in told
    desk.do("/set temperature 0.2", "/retry")
    again = desk.model.asked[2][1]
    assert again.temperature == 0.2
    assert again.seed != sampling.seed
    assert desk.chat.settings.sampling.seed is None


def test_a_retry_that_is_stopped_at_once_keeps_the_old_answer() -> None:
    desk = Desk(press_ctrl_c_at(0))
    desk.model.before_chunk, later = (lambda number: None), desk.model.before_chunk
    desk.do("say")
    desk.model.before_chunk = later
    desk.do("/retry")
    assert desk.texts() == ["say", "You said: say"]


def test_undo_stages_the_pictures_again(folder: Path) -> None:
    desk = Desk()
    told = desk.do("a.png what?", "/undo")
    assert desk.texts() == []
    assert [picture.name for picture in desk.chat.dialogue.attached] == ["a.png"]
    assert "attached again" in told
    assert desk.store.kept["id1"].conversation.messages == []


def test_a_full_context_offers_ways_out_and_keeps_the_message() -> None:
    desk = Desk(FakeModel(context_length=10))
    told = desk.do("one", "a b c d e f g h i j")
    for way in ("/drop", "/undo", "drop-oldest"):
        assert way in told
    assert desk.texts() == ["one", "You said: one"]


def test_a_message_too_long_by_itself_is_to_be_shortened() -> None:
    told = Desk(FakeModel(context_length=10)).do("a b c d e f g h i j k l")
    assert "shorten it" in told
    assert "/undo" not in told


def test_the_oldest_exchanges_are_left_out_if_so_wished() -> None:
    desk = Desk(FakeModel(context_length=20), settings=ChatSettings(overflow="drop-oldest"))
    desk.chat.dialogue.conversation.system = "be kind"
    told = desk.do("a b c", "d e f", "g h i")
    assert "left out" in told
    conversation, _ = desk.model.asked[-1]
    assert conversation.system == "be kind"
    assert [message.text for message in conversation.messages] == ["g h i"]
    assert len(desk.texts()) == 6
    assert "left out" not in desk.do("j")
    conversation, _ = desk.model.asked[-1]
    assert [message.text for message in conversation.messages] == ["g h i", "You said: g h i", "j"]


def test_what_was_left_out_is_back_once_it_fits() -> None:
    desk = Desk(FakeModel(context_length=20), settings=ChatSettings(overflow="drop-oldest"))
    desk.do("a b c", "d e f", "g h i", "/undo", "/undo", "k")
    conversation, _ = desk.model.asked[-1]
    assert [message.text for message in conversation.messages] == ["a b c", "You said: a b c", "k"]
    desk.do("l m n o p q", "/new", "r")
    conversation, _ = desk.model.asked[-1]
    assert [message.text for message in conversation.messages] == ["r"]
    assert not conversation.is_excerpt


@pytest.mark.fault("an error in an answer")
@pytest.mark.parametrize("error", [RuntimeError("shape"), MemoryError(), RuntimeError("can't allocate memory: 1 byte")])
def test_an_error_in_an_answer_does_not_end_the_chat(error: Exception) -> None:
    desk = Desk(FakeModel([error, "yes"]))
    told = desk.do("one")
    assert ("out of memory" if "shape" not in str(error) else "the answer failed: RuntimeError: shape") in told
    assert desk.do("two").count("error") == 0
    assert desk.texts() == ["two", "yes"]


@pytest.mark.fault("an error in an answer")
def test_a_bug_in_a_command_does_not_end_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()

    def fail(self: Chat) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(Chat, "go_on", fail)
    assert "bug in dsvl: RuntimeError: odd" in desk.do("/continue")
    assert desk.do("one").count("error") == 0


def test_a_nearly_full_context_is_warned_of_once() -> None:
    desk = Desk(FakeModel(["b b b b b b b b", "c"], context_length=10))
    assert "warning: 90% of the context" in desk.do("a")
    assert "warning" not in desk.do("/set temperature 0")


def test_used_tokens_count_attached_pictures(folder: Path) -> None:
    desk = Desk()
    desk.do("a.png")
    assert desk.chat.context.used_tokens == 10
    desk.do("what?")
    assert desk.chat.context.used_tokens == 10 + 1 + 3


def test_a_failing_store_is_warned_of_once_and_the_chat_goes_on() -> None:
    desk = Desk()
    desk.store.error = DsvlError("the disk is full")
    told = desk.do("one", "two")
    assert told.count("warning: the conversation is not saved: the disk is full") == 1
    desk.store.error = None
    assert desk.do("three") == ""
    assert len(desk.store.kept["id1"].conversation.messages) == 6


def test_a_save_that_was_cut_short_is_made_up_for_at_the_end() -> None:
    desk = Desk(scripted=True)
    desk.store.error = SystemExit(143)
    with pytest.raises(SystemExit):
        desk.do("one")
    desk.store.error = None
    desk.chat.save_at_last()
    assert len(desk.store.kept["id1"].conversation.messages) == 2


def test_nothing_is_saved_without_a_store() -> None:
    desk = Desk(store=NoStore())
    assert desk.do("hello") == ""
    assert "--no-save" in desk.do("/save x")
    assert "--no-save" in desk.do("/load x")
    desk.do("/export x.md")
    assert [(len(one.conversation.messages), str(one.path)) for one in desk.exports] == [(2, "x.md")]


def test_another_chat_on_the_same_conversation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.do("one")
    monkeypatch.setattr(desk.store, "save", lambda *_: "id9")
    assert "saved as id9" in desk.do("two")
    assert desk.chat.session_id == "id9"


def test_a_kept_conversation_goes_on() -> None:
    desk = Desk()
    messages = [Message("user", (make_picture(), "hi")), Message("assistant", ("hello",), (1,), "fake-1", "stop")]
    desk.chat.open(Kept("id7", None, Conversation(messages, "old system")))
    desk.do("and now?")
    assert desk.model.asked[0][0].messages[:2] == messages[:2]
    assert desk.model.asked[0][0].system == "old system"
    assert list(desk.store.kept) == ["id7"]


def test_a_load_error_is_told_and_another_model_can_be_tried() -> None:
    def load(name: str, listener: Listener) -> FakeModel:
        if name == "fake":
            raise DsvlError("fake is not to be had", "try another")
        return FakeModel(name=name)

    desk = Desk(load=load)
    assert "error: fake is not to be had" in desk.do("hello")
    assert "no model is loaded" in desk.do("hello")
    desk.do("/model other", "hello")
    assert desk.texts() == ["hello", "You said: hello"]


def test_a_message_waits_for_the_model_and_can_be_taken_back() -> None:
    go_on = threading.Event()

    def load(name: str, listener: Listener) -> FakeModel:
        go_on.wait(20)
        return FakeModel()

    desk = Desk(load=load)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert "waiting for fake" in desk.do("early")
    assert desk.chat.draft == "early"
    assert desk.texts() == []
    threading.Timer(0.1, go_on.set).start()
    desk.do("early")
    assert desk.texts() == ["early", "You said: early"]


def test_foreign_text_is_harmless(folder: Path) -> None:
    name = "\x1b]0;evil\x07.png"
    (folder / name).write_bytes(picture_bytes())
    desk = Desk(FakeModel(name="\x1b[2J"))
    told = desk.do(f"'{name}'", "/images", "/see 9", f"/drop {name}", "/\x1bx", "/stats", "/system \x1b[31m", "/undo")
    assert "evil" in told
    assert not {c for c in told if ord(c) < 32 and c != "\n"}

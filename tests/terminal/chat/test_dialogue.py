from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.conversation import Conversation, Message, Part, Picture, Reply, compose_parts
from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.dialogue import Dialogue, answered, marked_text
from tests.terminal.fake_model import make_picture

A, B, C = (make_picture(name) for name in ("a.png", "b.png", "c.png"))


def asked(text: str, *pictures: Picture) -> Message:
    return Message("user", compose_parts(text, pictures))


def said(text: str) -> Message:
    return Message("assistant", (text,), (1,), "fake-1", "stop")


def dialogue() -> Dialogue:
    return Dialogue(Conversation([asked("<image> or <image>?", A, B), said("a"), asked("and?"), said("b")]), [C])


def test_pictures_are_numbered_as_they_came() -> None:
    numbered = [(entry.number, entry.picture.name, entry.turn) for entry in dialogue().pictures()]
    assert numbered == [(1, "a.png", 1), (2, "b.png", 1), (3, "c.png", None)]


@pytest.mark.parametrize(("number", "left"), [(1, [B, C]), (2, [A, C]), (3, [A, B])])
def test_dropping_takes_one_picture_and_no_text(number: int, left: list[Picture]) -> None:
    talk = dialogue()
    texts = [message.text for message in talk.messages]
    dropped = talk.drop(number)
    assert [entry.picture for entry in talk.pictures()] == left
    assert dropped.picture not in left
    assert [message.text for message in talk.messages] == texts


def test_one_of_two_equal_pictures_is_dropped_by_its_place() -> None:
    talk = Dialogue(Conversation([asked("x <image> y <image> z", A, A)]))
    talk.drop(2)
    assert talk.messages[0].parts == ("x ", A, " y ", " z")


@pytest.mark.parametrize("number", [0, 4, 99])
def test_numbers_that_are_none_say_what_there_is(number: int) -> None:
    with pytest.raises(UsageError) as error:
        dialogue().picture(number)
    assert "1 to 3" in (error.value.hint or "")


def test_a_question_takes_the_attachments() -> None:
    assert dialogue().question("what?").parts == (C, "what?")
    assert dialogue().question("is <image> it?").parts == ("is ", C, " it?")


def test_a_mark_without_a_picture_is_explained() -> None:
    with pytest.raises(UsageError, match="none is attached"):
        Dialogue().question("what is <image>?")


def test_taking_back_attaches_the_pictures_again() -> None:
    talk = dialogue()
    assert talk.take_back().text == "and?"
    assert talk.attached == [C]
    assert talk.take_back().pictures == (A, B)
    assert talk.attached == [A, B, C]
    with pytest.raises(UsageError, match="there is no message yet"):
        talk.take_back()


@given(st.lists(st.one_of(st.text(alphabet="ab ?", min_size=1), st.just(A)), max_size=6))
def test_marked_text_composes_to_the_same_parts(parts: list[Part]) -> None:
    joined = compose_parts("".join(p if isinstance(p, str) else "<image>" for p in parts), [A] * parts.count(A))
    message = Message("user", joined)
    assert compose_parts(marked_text(message), message.pictures) == joined


def test_an_answer_follows_a_question() -> None:
    reply = Reply("yes", (7, 8), "length")
    messages = answered([asked("ok?")], reply, "f")
    assert messages[1] == Message("assistant", ("yes",), (7, 8), "f", "length")


def test_going_on_joins_text_and_ids() -> None:
    begun = Message("assistant", ("one ",), (1, 2), "f", "length")
    whole = answered([asked("?"), begun], Reply("two", (3,), "stop"), "f")
    assert whole[1:] == [Message("assistant", ("one two",), (1, 2, 3), "f", "stop")]


def test_ids_of_two_models_are_never_joined() -> None:
    begun = Message("assistant", ("one ",), (1, 2), "f", "length")
    whole = answered([asked("?"), begun], Reply("two", (3,), "stop"), "g")
    assert whole[1] == Message("assistant", ("one two",), None, None, "stop")


def test_dropping_changes_the_number_of_no_other_picture() -> None:
    talk = dialogue()
    talk.drop(2)
    assert [(entry.number, entry.picture) for entry in talk.pictures()] == [(1, A), (3, C)]
    with pytest.raises(UsageError, match="picture 2 was dropped") as error:
        talk.picture(2)
    assert error.value.hint == "/images lists pictures 1, 3"
    talk.drop(3)
    talk.attached.append(B)
    assert [(entry.number, entry.picture) for entry in talk.pictures()] == [(1, A), (4, B)]


@given(st.lists(st.one_of(st.just(0), st.integers(1, 20)), max_size=30), st.sets(st.integers(0, 29)))
def test_a_number_means_one_picture_for_the_life_of_a_conversation(actions: list[int], sends: set[int]) -> None:
    """0 attaches a new picture, another number drops the one with it, if there is one."""
    talk = Dialogue()
    meant: dict[int, Picture] = {}
    for step, action in enumerate(actions):
        present = {entry.number: entry.picture for entry in talk.pictures()}
        if action == 0:
            talk.attached.append(make_picture(f"{step}.png"))
        elif action in present:
            talk.drop(action)
        if step in sends:
            talk.messages.extend([talk.question(f"step {step}"), said("yes")])
            talk.attached.clear()
        for entry in talk.pictures():
            assert meant.setdefault(entry.number, entry.picture) is entry.picture

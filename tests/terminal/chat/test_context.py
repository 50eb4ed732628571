from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dsvl_cli.engine.conversation import Conversation, Message
from dsvl_cli.terminal.chat.context import leave_out_oldest
from tests.terminal.fake_model import FakeModel


def asked(text: str) -> Message:
    return Message("user", (text,))


def said(text: str) -> Message:
    return Message("assistant", (text,), (1,), "fake-1", "stop")


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 200), st.integers(1, 100))
def test_old_exchanges_are_left_out_until_half_of_the_context_is_free(
    lengths: list[int], context: int, answer: int
) -> None:
    messages = []
    for length in lengths:
        messages += [asked("w " * length), said("yes")]
    messages.pop()
    model = FakeModel(context_length=context)
    whole = Conversation(messages, "be kind")
    shorter, left_out = leave_out_oldest(whole, model, answer)
    room = context - min(answer, context // 4)
    assert shorter.system == "be kind"
    assert shorter.messages == messages[2 * left_out :]
    assert shorter.messages[-1] == messages[-1]
    last_only = len(shorter.messages) == 1
    assert last_only or model.count_tokens(shorter) <= room
    if left_out:
        assert model.count_tokens(whole) > room
        assert left_out == 1 or model.count_tokens(Conversation(messages[2 * left_out - 2 :], "be kind")) > room // 2
    assert shorter.is_excerpt == bool(left_out)


@given(st.integers(40, 200), st.integers(1, 9))
@settings(max_examples=20)
def test_the_beginning_of_the_prompt_stays_until_the_freed_half_is_used(context: int, length: int) -> None:
    model, messages, left_out, changes, before = FakeModel(context_length=context), [], 0, 0, 0
    for _ in range(100):
        messages.append(asked("w " * length))
        _, left_out = leave_out_oldest(Conversation(messages), model, 8, left_out)
        changes += left_out != before
        before = left_out
        messages.append(said("yes"))
    room = context - min(8, context // 4)
    exchange = length + 2  # the words, the space after the last one, and the answer
    assert changes <= 1 + 100 / max(1, room // 2 // exchange - 1)

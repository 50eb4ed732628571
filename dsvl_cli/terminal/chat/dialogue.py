"""The conversation and the pictures attached to the next message: bookkeeping only, no terminal and no model."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dsvl_cli.engine.conversation import ChatModel, Conversation, Message, Part, Picture, Reply, compose_parts
from dsvl_cli.engine.options import IMAGE_MARK
from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class NumberedPicture:
    """A picture with its number in the chat.

    Attributes:
        number: from 1, in the order in which they were attached; it stays when others are dropped.
        turn: the turn in which it was sent, from 1; None if it is attached to the next message.
    """

    number: int
    picture: Picture
    turn: int | None


@dataclass(slots=True)
class Dialogue:
    """The conversation, and the pictures attached to the next message."""

    conversation: Conversation = field(default_factory=Conversation)
    attached: list[Picture] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        """The messages so far; not a copy."""
        return self.conversation.messages

    @property
    def turns(self) -> int:
        """The number of user messages."""
        return sum(message.role == "user" for message in self.messages)

    def pictures(self) -> list[NumberedPicture]:
        """Return all pictures, sent and attached, with their numbers."""
        found: list[tuple[Picture, int | None]] = []
        turn = 0
        for message in self.messages:
            turn += message.role == "user"
            found += [(picture, turn) for picture in message.pictures]
        found += [(picture, None) for picture in self.attached]
        return [
            NumberedPicture(number, *entry) for number, entry in zip(self.conversation.numbers(), found, strict=False)
        ]

    def picture(self, number: int) -> NumberedPicture:
        """Return the picture with that number.

        Raises:
            UsageError: it does not exist.
        """
        pictures = self.pictures()
        for entry in pictures:
            if entry.number == number:
                return entry
        numbers = _ranges([entry.number for entry in pictures])
        hint = f"/images lists pictures {numbers}" if numbers else "attach one with /image"
        if number in self.conversation.dropped:
            raise UsageError(f"picture {number} was dropped", hint)
        raise UsageError(f"there is no picture {number}", hint)

    def drop(self, number: int) -> NumberedPicture:
        """Remove an attached picture, or one from the message that it was sent with. The others keep their numbers.

        Raises:
            UsageError: it does not exist.
        """
        dropped = self.picture(number)
        left = self.pictures().index(dropped)
        self.conversation.dropped.add(number)
        for index, message in enumerate(self.messages):
            if left < len(message.pictures):
                self.messages[index] = replace(message, parts=_without_picture(message.parts, left))
                return dropped
            left -= len(message.pictures)
        del self.attached[left]
        return dropped

    def question(self, text: str) -> Message:
        """Return a message of the text and the attached pictures.

        Raises:
            UsageError: the number of `<image>` marks in the text differs from the number of attached pictures.
        """
        if IMAGE_MARK in text and not self.attached:
            raise UsageError(
                f"{IMAGE_MARK} stands for a picture, but none is attached",
                "attach one first: /image PATH, or drop a file into the line",
            )
        return Message("user", compose_parts(text, self.attached))

    def last_question(self) -> int:
        """Return the index of the last user message.

        Raises:
            UsageError: there is none.
        """
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].role == "user":
                return index
        raise UsageError("there is no message yet")

    def take_back(self) -> Message:
        """Remove the last exchange; its pictures are attached again, before those already attached.

        Raises:
            UsageError: there is none.
        """
        index = self.last_question()
        question = self.messages[index]
        del self.messages[index:]
        self.attached[:0] = question.pictures
        return question


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers in words: "1 to 3, 5"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{each[0]} to {each[-1]}" if len(each) > 1 else str(each[0]) for each in ranges)


def _without_picture(parts: Sequence[Part], index: int) -> tuple[Part, ...]:
    positions = [position for position, part in enumerate(parts) if isinstance(part, Picture)]
    return tuple(part for position, part in enumerate(parts) if position != positions[index])


def marked_text(message: Message) -> str:
    """Return a message's text, with `<image>` marks unless all pictures come first: the inverse of `compose_parts`."""
    leading = all(isinstance(part, Picture) for part in message.parts[: len(message.pictures)])
    if leading and IMAGE_MARK not in message.text:
        return message.text
    return "".join(part if isinstance(part, str) else IMAGE_MARK for part in message.parts)


def answered(messages: Sequence[Message], reply: Reply, fingerprint: str) -> list[Message]:
    """Return the messages with a reply appended, either as a new message or to the last answer.

    Token ids of different models are never mixed: an answer started by another model only keeps its text.
    """
    *before, last = messages
    if last.role == "user":
        answer = Message("assistant", (reply.text,), reply.token_ids, fingerprint, reply.finish_reason)
        return [*messages, answer]
    same = last.model == fingerprint and last.token_ids is not None
    ids = (*(last.token_ids or ()), *reply.token_ids) if same else None
    whole = Message("assistant", (last.text + reply.text,), ids, fingerprint if same else None, reply.finish_reason)
    return [*before, whole]


def leave_out_oldest(
    conversation: Conversation, model: ChatModel, answer_tokens: int, left_out: int = 0
) -> tuple[Conversation, int]:
    """Return the newest exchanges that fit into the context with an answer, and the number of older ones left out.

    Leaving out another exchange changes the beginning of the prompt, and the KV cache has to be computed again. So as
    many are left out as frees half of the context: until that is used up, each turn only adds to the prompt before.

    The system prompt and the last question are always kept.

    Args:
        conversation: the whole one.
        model: counts the tokens.
        answer_tokens: reserved for the answer, but at most a quarter of the context.
        left_out: the number of exchanges left out of the previous prompt.
    """
    room = model.context_length - min(answer_tokens, model.context_length // 4)
    last = max(0, sum(message.role == "user" for message in conversation.messages) - 1)
    left_out = min(left_out, last)

    def fits(number: int, limit: int) -> bool:
        return number == last or model.count_tokens(keep_newest(conversation, number)) <= limit

    if not fits(left_out, room):
        left_out += 1 + bisect_left(range(left_out + 1, last), True, key=lambda number: fits(number, room // 2))
    return keep_newest(conversation, left_out), left_out


def keep_newest(conversation: Conversation, left_out: int) -> Conversation:
    """Return a conversation without its oldest exchanges."""
    starts = [index for index, message in enumerate(conversation.messages) if message.role == "user"]
    if not left_out or not starts:
        return conversation
    start = starts[min(left_out, len(starts) - 1)]
    return Conversation(conversation.messages[start:], conversation.system, is_excerpt=start > 0)

"""The conversation and the pictures attached to the next message: bookkeeping only, no terminal and no model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dsvl_cli.engine.conversation import Conversation, Message, Part, Picture, Reply, compose_parts
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

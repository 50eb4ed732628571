"""The conversation with what is staged for the next message: bookkeeping only, no terminal and no model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dsvl_cli.engine.conversation import ChatModel, Conversation, Message, Part, Picture, Reply, compose_parts
from dsvl_cli.engine.options import IMAGE_MARK
from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class NumberedPicture:
    """A picture by the number that the user calls it.

    Attributes:
        number: from 1: first what was sent, oldest first, then what is staged.
        turn: in which turn it was sent, from 1; None while it is staged.
    """

    number: int
    picture: Picture
    turn: int | None


@dataclass(slots=True)
class Dialogue:
    """What has been said, and the pictures that wait for the next message."""

    conversation: Conversation = field(default_factory=Conversation)
    staged: list[Picture] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        """The messages so far; the list itself."""
        return self.conversation.messages

    @property
    def turns(self) -> int:
        """How many questions were asked."""
        return sum(message.role == "user" for message in self.messages)

    def pictures(self) -> list[NumberedPicture]:
        """Every picture, sent and staged, numbered."""
        found: list[tuple[Picture, int | None]] = []
        turn = 0
        for message in self.messages:
            turn += message.role == "user"
            found += [(picture, turn) for picture in message.pictures]
        found += [(picture, None) for picture in self.staged]
        return [NumberedPicture(number, *entry) for number, entry in enumerate(found, 1)]

    def picture(self, number: int) -> NumberedPicture:
        """Return the picture of that number.

        Raises:
            UsageError: there is none.
        """
        pictures = self.pictures()
        if not 1 <= number <= len(pictures):
            known = f"the pictures are 1 to {len(pictures)}; /images lists them" if pictures else "/image adds one"
            raise UsageError(f"there is no picture {number}", known)
        return pictures[number - 1]

    def drop(self, number: int) -> NumberedPicture:
        """Take a picture away: from what is staged, or out of the message that it was sent with.

        Raises:
            UsageError: there is no such picture.
        """
        dropped = self.picture(number)
        left = number - 1
        for index, message in enumerate(self.messages):
            if left < len(message.pictures):
                self.messages[index] = replace(message, parts=_without_picture(message.parts, left))
                return dropped
            left -= len(message.pictures)
        del self.staged[left]
        return dropped

    def question(self, text: str) -> Message:
        """Return the message that the text makes with what is staged.

        Raises:
            UsageError: the text's `<image>` marks and the staged pictures do not match in number.
        """
        if IMAGE_MARK in text and not self.staged:
            raise UsageError(
                f"{IMAGE_MARK} marks the place of a picture, and none is staged",
                "add one first: /image PATH, or drop a file into the line",
            )
        return Message("user", compose_parts(text, self.staged))

    def last_question(self) -> int:
        """Return the index of the last message of the user.

        Raises:
            UsageError: nothing was asked yet.
        """
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].role == "user":
                return index
        raise UsageError("nothing was asked yet")

    def take_back(self) -> Message:
        """Remove the last question with its answer; its pictures are staged again, before those that wait already.

        Raises:
            UsageError: nothing was asked yet.
        """
        index = self.last_question()
        question = self.messages[index]
        del self.messages[index:]
        self.staged[:0] = question.pictures
        return question


def _without_picture(parts: Sequence[Part], index: int) -> tuple[Part, ...]:
    places = [place for place, part in enumerate(parts) if isinstance(part, Picture)]
    return tuple(part for place, part in enumerate(parts) if place != places[index])


def marked_text(message: Message) -> str:
    """Return a message's text, with `<image>` marks unless its pictures all come first; `compose_parts` undoes it."""
    leading = all(isinstance(part, Picture) for part in message.parts[: len(message.pictures)])
    if leading and IMAGE_MARK not in message.text:
        return message.text
    return "".join(part if isinstance(part, str) else IMAGE_MARK for part in message.parts)


def answered(messages: Sequence[Message], reply: Reply, fingerprint: str) -> list[Message]:
    """Return the messages with a reply to the last question, or with the last answer gone on with.

    Token ids of two models never stand in one message: an answer that another model began keeps its text only.
    """
    *before, last = messages
    if last.role == "user":
        answer = Message("assistant", (reply.text,), reply.token_ids, fingerprint, reply.finish_reason)
        return [*messages, answer]
    same = last.model == fingerprint and last.token_ids is not None
    ids = (*(last.token_ids or ()), *reply.token_ids) if same else None
    whole = Message("assistant", (last.text + reply.text,), ids, fingerprint if same else None, reply.finish_reason)
    return [*before, whole]


def leave_out_oldest(conversation: Conversation, model: ChatModel, answer_tokens: int) -> tuple[Conversation, int]:
    """Return the newest exchanges that fit into the context with an answer, and how many older ones do not.

    The system text and the last question always stay. Room is kept for an answer of `answer_tokens`, at most a quarter
    of the context.
    """
    room = model.context_length - min(answer_tokens, model.context_length // 4)
    starts = [index for index, message in enumerate(conversation.messages) if message.role == "user"]
    for left_out, start in enumerate(starts):
        shorter = Conversation(conversation.messages[start:], conversation.system)
        if left_out == len(starts) - 1 or model.count_tokens(shorter) <= room:
            return shorter, left_out
    return conversation, 0

"""A kept conversation and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from dsvl_cli.engine.conversation import Conversation

TITLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class SavedSession:
    """A conversation as it was saved last.

    Attributes:
        id: such as `20261124-0211-k3f`: when it was begun, local time, and three random characters; "" for a
            conversation that is not kept.
        name: given by the user; unique.
        model: what the user called the model.
        created, updated: the first and the last save, with a time zone.
        conversation: equal to the one that was saved, pictures with their bytes.
    """

    id: str
    name: str | None
    model: str
    created: datetime
    updated: datetime
    conversation: Conversation

    @property
    def heading(self) -> str:
        """What to write above it: the name, else the title."""
        return self.name or title_of(self.conversation) or "Conversation"


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What a list shows of a session: the attributes of `SavedSession`, and counts in place of the conversation."""

    id: str
    name: str | None
    title: str
    model: str
    created: datetime
    updated: datetime
    messages: int
    pictures: int


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A session that was found, and the surroundings of the first match in it."""

    session: SessionSummary
    excerpt: str


def title_of(conversation: Conversation) -> str:
    """Cut what the user said first, or else the name of the first picture, to one short line; "" for neither."""
    texts = (message.text for message in conversation.messages if message.role == "user")
    names = (picture.name for picture in conversation.pictures)
    title = next((line for text in (*texts, *names) if (line := " ".join(text.split()))), "")
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1].rstrip() + "…"

"""Saved conversations and their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from dsvl_cli.engine.conversation import Conversation

TITLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class SavedSession:
    """A saved conversation.

    Attributes:
        id: such as `20261124-0211-k3f`: its start in local time and three random characters; "" for a conversation that
            is not saved.
        name: given by the user; unique.
        model: the model's name as the user gave it.
        created, updated: the first and the last save, with a time zone.
        conversation: the messages, including the pictures' bytes.
        settings: JSON values by name: how answers were sampled and the model was loaded; empty if not known.
    """

    id: str
    name: str | None
    model: str
    created: datetime
    updated: datetime
    conversation: Conversation
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """The heading: the name, or else the title."""
        return self.name or title_of(self.conversation) or "Conversation"


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session in a list: the attributes of `SavedSession`, with counts instead of the conversation."""

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
    """A search result: a session, and an excerpt around the first match."""

    session: SessionSummary
    excerpt: str


def title_of(conversation: Conversation) -> str:
    """Return a short line from the first user message or else the first picture's name, or "" if there is neither."""
    texts = (message.text for message in conversation.messages if message.role == "user")
    names = (picture.name for picture in conversation.pictures)
    title = next((line for text in (*texts, *names) if (line := " ".join(text.split()))), "")
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1].rstrip() + "…"

"""The interface for storing and exporting conversations, and a store that stores nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dsvl_cli.engine.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Export:
    """A conversation to write to a file.

    Attributes:
        session_id, name: under which it is saved; None if it is not, or has no name.
        model: the model's name.
        path: where to, in the format of its suffix.
        embed: embed the pictures; otherwise write them to a folder beside it.
        overwrite: replace an existing file.
    """

    conversation: Conversation
    session_id: str | None
    name: str | None
    model: str
    path: Path
    embed: bool
    overwrite: bool


class ConversationSummary(Protocol):
    """A stored conversation in a list."""

    @property
    def id(self) -> str:
        """The id in the store."""
        ...

    @property
    def name(self) -> str | None:
        """The name given by the user."""
        ...

    @property
    def title(self) -> str:
        """A short description."""
        ...


class StoredConversation(Protocol):
    """A stored conversation."""

    @property
    def id(self) -> str:
        """The id in the store."""
        ...

    @property
    def name(self) -> str | None:
        """The name given by the user."""
        ...

    @property
    def model(self) -> str:
        """The model's name as the user gave it."""
        ...

    @property
    def conversation(self) -> Conversation:
        """The messages."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What `save` was given; empty if it is not known."""
        ...


class ConversationStore(Protocol):
    """Stores conversations. Every method but `create` may raise DsvlError, which the chat reports."""

    def create(self) -> str:
        """Return an id for a new conversation."""
        ...

    def save(self, session_id: str, conversation: Conversation, model: str, settings: Mapping[str, Any]) -> str:
        """Save the changes atomically, with settings as JSON values, and return the id to use from then on.

        It is a new one if the same conversation has been continued elsewhere in the meantime.
        """
        ...

    def rename(self, session_id: str, name: str) -> None:
        """Name a stored conversation."""
        ...

    def load(self, key: str) -> StoredConversation:
        """Return the conversation with that id or name."""
        ...

    def list(self, limit: int | None = None) -> Sequence[ConversationSummary]:
        """Return the stored conversations, newest first."""
        ...


class NoStore:
    """Stores nothing: `--no-save`."""

    def create(self) -> str:
        """Return an empty id."""
        return ""

    def save(self, session_id: str, conversation: Conversation, model: str, settings: Mapping[str, Any]) -> str:
        """Do nothing."""
        return session_id

    def rename(self, session_id: str, name: str) -> None:
        """Raise an error."""
        raise _nothing_stored()

    def load(self, key: str) -> StoredConversation:
        """Raise an error."""
        raise _nothing_stored()

    def list(self, limit: int | None = None) -> Sequence[ConversationSummary]:
        """Return nothing."""
        return ()


def _nothing_stored() -> UsageError:
    return UsageError("this chat is not saved", "start it without --no-save, or use /export PATH")

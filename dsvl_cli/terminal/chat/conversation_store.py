"""The interface for storing conversations, and an implementation that stores nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsvl_cli.engine.conversation import Conversation


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
    def conversation(self) -> Conversation:
        """The messages."""
        ...


class ConversationStore(Protocol):
    """Stores conversations. Every method but `create` may raise DsvlError, which the chat reports."""

    def create(self) -> str:
        """Return an id for a new conversation."""
        ...

    def save(self, session_id: str, conversation: Conversation, model: str) -> str:
        """Save the changes atomically and return the id to use from then on.

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

    def save(self, session_id: str, conversation: Conversation, model: str) -> str:
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

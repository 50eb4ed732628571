"""What a chat needs of the place where conversations are kept, and the one that keeps nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsvl_cli.engine.conversation import Conversation


class ConversationSummary(Protocol):
    """What a list of kept conversations shows of one."""

    @property
    def id(self) -> str:
        """What the store calls it."""
        ...

    @property
    def name(self) -> str | None:
        """What the user calls it."""
        ...

    @property
    def title(self) -> str:
        """What it is about."""
        ...


class KeptConversation(Protocol):
    """A conversation as it was kept."""

    @property
    def id(self) -> str:
        """What the store calls it."""
        ...

    @property
    def conversation(self) -> Conversation:
        """What was said."""
        ...


class ConversationKeeper(Protocol):
    """Keeps conversations. Every method but `create` may raise DsvlError; the chat tells it and goes on."""

    def create(self) -> str:
        """Choose the id of a new conversation."""
        ...

    def save(self, session_id: str, conversation: Conversation, model: str) -> str:
        """Write what changed, all of it or nothing, and return the id to go on with.

        It is another one when somebody else has gone on with the same conversation meanwhile.
        """
        ...

    def rename(self, session_id: str, name: str) -> None:
        """Give a kept conversation a name."""
        ...

    def load(self, key: str) -> KeptConversation:
        """Return the conversation of that id or name."""
        ...

    def list(self, limit: int | None = None) -> Sequence[ConversationSummary]:
        """Return what is kept, newest first."""
        ...


class NoKeeper:
    """Keeps nothing: `--no-save`."""

    def create(self) -> str:
        """Return no id."""
        return ""

    def save(self, session_id: str, conversation: Conversation, model: str) -> str:
        """Do nothing."""
        return session_id

    def rename(self, session_id: str, name: str) -> None:
        """Refuse."""
        raise _nothing_kept()

    def load(self, key: str) -> KeptConversation:
        """Refuse."""
        raise _nothing_kept()

    def list(self, limit: int | None = None) -> Sequence[ConversationSummary]:
        """Return nothing."""
        return ()


def _nothing_kept() -> UsageError:
    return UsageError("nothing is kept in this chat", "leave out --no-save; /export PATH still works")

"""Commands on whole conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.attachments import split_arguments
from dsvl_cli.terminal.chat.slash.command import SlashCommand
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dsvl_cli.terminal.chat.chat import Chat

_MOST_LISTED = 20
_BESIDE = "beside"


def begin_anew(chat: Chat, _: str) -> None:
    """Start a new conversation."""
    chat.begin_anew()
    chat.tell("new conversation")


def name_conversation(chat: Chat, argument: str) -> None:
    """Name the conversation."""
    if not chat.dialogue.messages:
        raise UsageError("there is nothing to save yet", "send a message first")
    chat.save()
    if chat.session_id is not None:
        chat.services.store.rename(chat.session_id, argument)
        chat.tell(f"saved as {argument}")


def load_conversation(chat: Chat, argument: str) -> None:
    """Continue a saved conversation, or list them."""
    store = chat.services.store
    if not argument:
        rows = [(saved.name or saved.id, saved.title) for saved in store.list(_MOST_LISTED)]
        chat.tell(*align(rows, chat.console.status_width) or ["there are no saved conversations yet"])
        return
    chat.open(store.load(argument))
    chat.tell(f"{argument}: {chat.dialogue.turns} turns, {len(chat.dialogue.conversation.pictures)} pictures")


def offer_conversations(chat: Chat, _: str) -> Iterable[str]:
    """Offer the names of saved conversations."""
    return [saved.name or saved.id for saved in chat.services.store.list(_MOST_LISTED)]


def export_conversation(chat: Chat, argument: str) -> None:
    """Write the conversation to a file."""
    name, *rest = split_arguments(argument)
    if rest not in ([], [_BESIDE]):
        raise UsageError("/export takes one file", "put a name with spaces in quotes")
    embed = not rest
    chat.services.export(chat.dialogue.conversation, chat.model_name, Path(name).expanduser(), embed)
    chat.tell(f"written to {name}{'' if embed else ', with the pictures next to it'}")


COMMANDS = (
    SlashCommand("new", "", "start a new conversation", begin_anew),
    SlashCommand("save", "NAME", "name the conversation", name_conversation),
    SlashCommand(
        "load", "[NAME]", "continue a saved conversation, or list them", load_conversation, complete=offer_conversations
    ),
    SlashCommand(
        "export",
        "PATH [beside]",
        "export to .md, .html or .json, pictures embedded or beside it",
        export_conversation,
    ),
)

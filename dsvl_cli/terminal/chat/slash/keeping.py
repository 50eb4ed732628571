"""Commands on whole conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.attachments import split_arguments
from dsvl_cli.terminal.chat.conversation_store import Export
from dsvl_cli.terminal.chat.slash.command import SlashCommand
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dsvl_cli.terminal.chat.chat import Chat

_MOST_LISTED = 20
_BESIDE, _OVERWRITE = "beside", "--overwrite"


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
        chat.session_name = " ".join(argument.split())
        chat.tell(f"saved as {argument}")


def load_conversation(chat: Chat, argument: str) -> None:
    """Continue a saved conversation, or list them."""
    store = chat.services.store
    if not argument:
        rows = [(saved.name or saved.id, saved.title) for saved in store.list(_MOST_LISTED)]
        chat.tell(*align(rows, chat.console.status_width) or ["there are no saved conversations yet"])
        return
    restored = chat.open(store.load(argument))
    chat.tell(f"{argument}: {chat.dialogue.turns} turns, {len(chat.dialogue.conversation.pictures)} pictures")
    if restored.obstacle is not None:
        chat.tell(f"{restored.obstacle.message}: {chat.model_name} answers; /model NAME loads another one")
    elif restored.choice != chat.loading.wanted:
        chat.loading.start(restored.choice.name, restored.choice.options)
    chat.show_restored(restored)


def offer_conversations(chat: Chat, _: str) -> Iterable[str]:
    """Offer the names of saved conversations."""
    return [saved.name or saved.id for saved in chat.services.store.list(_MOST_LISTED)]


def export_conversation(chat: Chat, argument: str) -> None:
    """Write the conversation to a file."""
    words = split_arguments(argument)
    options = {word for word in words if word in (_BESIDE, _OVERWRITE)}
    names = [word for word in words if word not in options]
    if len(names) != 1:
        raise UsageError("/export takes one file", "put a name with spaces in quotes")
    embed = _BESIDE not in options
    chat.services.export(
        Export(
            chat.dialogue.conversation,
            chat.session_id,
            chat.session_name,
            chat.model_name,
            Path(names[0]).expanduser(),
            embed,
            _OVERWRITE in options,
        )
    )
    chat.tell(f"written to {names[0]}{'' if embed else ', with the pictures next to it'}")


COMMANDS = (
    SlashCommand("new", "", "start a new conversation", begin_anew),
    SlashCommand("save", "NAME", "name the conversation", name_conversation),
    SlashCommand(
        "load", "[NAME]", "continue a saved conversation, or list them", load_conversation, complete=offer_conversations
    ),
    SlashCommand(
        "export",
        "PATH [beside] [--overwrite]",
        "export to .md, .html or .json, pictures embedded or beside it",
        export_conversation,
    ),
)

"""The commands about conversations as wholes."""

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
    """Begin another conversation."""
    chat.begin_anew()
    chat.tell("a new conversation")


def name_conversation(chat: Chat, argument: str) -> None:
    """Give the conversation a name."""
    if not chat.dialogue.messages:
        raise UsageError("there is nothing to save yet", "say something first")
    chat.save()
    if chat.session_id is not None:
        chat.services.keeper.rename(chat.session_id, argument)
        chat.tell(f"saved as {argument}")


def load_conversation(chat: Chat, argument: str) -> None:
    """Go on with a kept conversation, or list them."""
    keeper = chat.services.keeper
    if not argument:
        rows = [(kept.name or kept.id, kept.title) for kept in keeper.list(_MOST_LISTED)]
        chat.tell(*align(rows, chat.console.status_width) or ["no conversations are kept yet"])
        return
    chat.open(keeper.load(argument))
    chat.tell(f"{argument}: {chat.dialogue.turns} turns, {len(chat.dialogue.conversation.pictures)} pictures")


def offer_conversations(chat: Chat, _: str) -> Iterable[str]:
    """Offer the names of kept conversations."""
    return [kept.name or kept.id for kept in chat.services.keeper.list(_MOST_LISTED)]


def export_conversation(chat: Chat, argument: str) -> None:
    """Write the conversation to a file."""
    name, *rest = split_arguments(argument)
    if rest not in ([], [_BESIDE]):
        raise UsageError("/export takes one file", "put quotes around a name with spaces")
    embed = not rest
    chat.services.export(chat.dialogue.conversation, chat.model_name, Path(name).expanduser(), embed)
    chat.tell(f"written to {name}{'' if embed else ', the pictures beside it'}")


COMMANDS = (
    SlashCommand("new", "", "begin another conversation", begin_anew),
    SlashCommand("save", "NAME", "give the conversation a name", name_conversation),
    SlashCommand("load", "[NAME]", "go on with a kept conversation", load_conversation, complete=offer_conversations),
    SlashCommand(
        "export",
        "PATH [beside]",
        "write .md, .html or .json, pictures inside or beside",
        export_conversation,
    ),
)

"""The commands about questions and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.dialogue import marked_text
from dsvl_cli.terminal.chat.input.editor import edit_text
from dsvl_cli.terminal.chat.slash.command import SlashCommand

if TYPE_CHECKING:
    from dsvl_cli.terminal.chat.chat import Chat


def go_on(chat: Chat, _: str) -> None:
    """Go on with a cut answer."""
    chat.go_on()


def retry(chat: Chat, _: str) -> None:
    """Draw another answer."""
    chat.retry()


def undo(chat: Chat, _: str) -> None:
    """Take the last exchange back."""
    question = chat.dialogue.take_back()
    chat.save()
    pictures = len(question.pictures)
    staged = f"; its {'picture is' if pictures == 1 else f'{pictures} pictures are'} staged again" if pictures else ""
    chat.tell(f"taken back: {question.text}{staged}")


def edit(chat: Chat, _: str) -> None:
    """Change the last question in an editor and ask it again."""
    _require_terminal(chat, "/edit")
    question = chat.dialogue.messages[chat.dialogue.last_question()]
    before = marked_text(question)
    text = _edited(chat, before)
    if text in ("", before):
        chat.tell("unchanged, so not asked again; /retry draws another answer")
        return
    chat.tell(f"> {text}")
    chat.ask_instead(text)


def write_message(chat: Chat, argument: str) -> None:
    """Write a message in an editor and send it."""
    _require_terminal(chat, "/editor")
    text = _edited(chat, argument)
    if not text:
        chat.tell("nothing was written, so nothing is sent")
        return
    chat.tell(f"> {text}")
    chat.send(text)


def _edited(chat: Chat, text: str) -> str:
    with chat.lend_terminal():
        return edit_text(text, chat.console.environment.variables).strip()


def _require_terminal(chat: Chat, command: str) -> None:
    if chat.scripted:
        raise UsageError(f"{command} needs a terminal", "write the message as a line")


COMMANDS = (
    SlashCommand("continue", "", "go on with an answer that was cut", go_on),
    SlashCommand("retry", "", "answer the last message again, with another seed", retry),
    SlashCommand("undo", "", "take back the last message and its answer", undo),
    SlashCommand("edit", "", "change the last message in $EDITOR and send it again", edit),
    SlashCommand("editor", "[TEXT]", "write a message in $EDITOR", write_message),
)

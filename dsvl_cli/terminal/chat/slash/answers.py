"""Commands on messages and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.attachments import refuse_new_names
from dsvl_cli.terminal.chat.dialogue import marked_text
from dsvl_cli.terminal.chat.input.editor import edit_text
from dsvl_cli.terminal.chat.slash.command import SlashCommand

if TYPE_CHECKING:
    from dsvl_cli.terminal.chat.chat import Chat


def go_on(chat: Chat, _: str) -> None:
    """Continue an answer that was cut off."""
    chat.go_on()


def retry(chat: Chat, _: str) -> None:
    """Generate another answer."""
    chat.retry()


def undo(chat: Chat, _: str) -> None:
    """Remove the last exchange."""
    question = chat.dialogue.take_back()
    chat.save()
    pictures = len(question.pictures)
    again = f"; its {'picture is' if pictures == 1 else f'{pictures} pictures are'} attached again" if pictures else ""
    chat.tell(f"removed: {question.text}{again}")


def edit(chat: Chat, _: str) -> None:
    """Edit the last message and send it again."""
    _require_terminal(chat, "/edit")
    question = chat.dialogue.messages[chat.dialogue.last_question()]
    before = marked_text(question)
    text = _edited(chat, before)
    if text in ("", before):
        chat.tell("unchanged and not sent; /retry generates another answer")
        return
    refuse_new_names(text, before, chat.services.sources)
    chat.tell(f"> {text}")
    chat.ask_instead(text)


def write_message(chat: Chat, argument: str) -> None:
    """Write a message in an editor and send it."""
    _require_terminal(chat, "/editor")
    text = _edited(chat, argument)
    if not text:
        chat.tell("empty and not sent")
        return
    chat.tell(f"> {text}")
    chat.send(text)


def send_as_is(chat: Chat, argument: str) -> None:
    """Send a message in which nothing is taken for the name of a picture."""
    chat.send(argument, as_is=True)


def copy_answer(chat: Chat, _: str) -> None:
    """Copy the last answer."""
    from dsvl_cli.terminal.clipboard import copy_text

    answers = [message.text for message in chat.dialogue.messages if message.role == "assistant"]
    if not answers:
        raise UsageError("there is no answer yet", "send a message first")
    chat.tell(f"the answer is copied to {copy_text(chat.console, answers[-1])}")


def _edited(chat: Chat, text: str) -> str:
    with chat.lend_terminal():
        return edit_text(text, chat.console.environment.variables).strip()


def _require_terminal(chat: Chat, command: str) -> None:
    if chat.scripted:
        raise UsageError(f"{command} needs a terminal", "type the message as a line")


COMMANDS = (
    SlashCommand("continue", "", "continue an answer that was cut off", go_on),
    SlashCommand("retry", "", "answer the last message again with another seed", retry),
    SlashCommand("undo", "", "remove the last message and its answer", undo),
    SlashCommand("edit", "", "edit the last message in $EDITOR and send it again", edit),
    SlashCommand("text", "LINE", "send a line as it is: no word in it is taken for a picture", send_as_is),
    SlashCommand("copy", "", "copy the last answer to the clipboard", copy_answer),
    SlashCommand("editor", "[TEXT]", "write a message in $EDITOR", write_message),
)

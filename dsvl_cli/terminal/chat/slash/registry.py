"""All slash commands: lookup, execution and help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dsvl_cli.terminal.chat.input.blocks import block_content
from dsvl_cli.terminal.chat.slash import answers, keeping, pictures, tuning
from dsvl_cli.terminal.chat.slash.command import SlashCommand
from dsvl_cli.terminal.chat.slash.guesses import unknown_command
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from dsvl_cli.terminal.chat.chat import Chat

_COMMAND = re.compile(r"/([A-Za-z?_-]+)(?:\s+(.*))?\s*", re.DOTALL)
_BARE = ("help", "exit", "quit")
_KEYS = (
    ("Alt-Enter, Ctrl-J", 'new line; or put several lines between two """'),
    ("@FILE", "attach a picture; you can also drop one into the line, or type its path or URL"),
    ("Tab", "complete commands and paths; Enter takes the selected one, Esc closes the list"),
    ("Ctrl-V, /paste", "attach the picture on the clipboard"),
    ("Ctrl-R", "search the history"),
    ("Ctrl-C", "stop an answer; twice at an empty prompt exits, as does Ctrl-D"),
)


def show_help(chat: Chat, argument: str) -> None:
    """Show all commands and keys, or one command."""
    if argument:
        command = find_command(argument.removeprefix("/"))
        chat.tell(f"{command.usage}: {command.help}", *(f"also /{alias}" for alias in command.aliases))
        return
    width = chat.console.status_width
    chat.tell(*align([(command.usage, command.help) for command in COMMANDS], width), "")
    chat.tell(*align(_KEYS, width), "", "<image> in a message marks where a picture goes; by default they come first.")


def offer_commands(_: Chat, _typed: str) -> list[str]:
    """Offer command names."""
    return [command.name for command in COMMANDS]


def clear_screen(chat: Chat, _: str) -> None:
    """Clear the screen, but not the conversation."""
    chat.clear_screen()


def leave(chat: Chat, _: str) -> None:
    """Exit the chat."""
    chat.leaving = True


COMMANDS = (
    *pictures.COMMANDS,
    *answers.COMMANDS,
    *tuning.COMMANDS,
    *keeping.COMMANDS,
    SlashCommand("clear", "", "clear the screen, but not the conversation", clear_screen),
    SlashCommand("help", "[COMMAND]", "show this help", show_help, ("?",), offer_commands),
    SlashCommand("exit", "", "exit the chat", leave, ("quit", "bye", "q")),
)
_BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}


def split_command(line: str) -> tuple[str, str] | None:
    """Split a line into a command's name and argument, or return None for a message; a path like `/a/b` is one.

    The words that people type to leave or to get help are commands if they are alone on a line.
    """
    line = line.strip()
    if line.lower() in _BARE:
        return line.lower(), ""
    match = _COMMAND.fullmatch(line)
    return (match[1].lower(), block_content((match[2] or "").strip()).strip()) if match else None


def find_command(name: str) -> SlashCommand:
    """Return the command with that name.

    Raises:
        UsageError: it does not exist; the hint suggests a similar one.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    raise unknown_command(name, _BY_NAME)


def run_command(chat: Chat, name: str, argument: str) -> None:
    """Run a command.

    Raises:
        DsvlError: it does not exist, its argument is invalid, or it failed.
    """
    command = find_command(name)
    command.check(argument)
    command.run(chat, argument)

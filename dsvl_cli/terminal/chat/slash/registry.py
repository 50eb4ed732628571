"""All slash commands: finding the one that was typed, running it, helping with it."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.slash import answers, keeping, pictures, tuning
from dsvl_cli.terminal.chat.slash.command import SlashCommand
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from dsvl_cli.terminal.chat.chat import Chat

_COMMAND = re.compile(r"/([A-Za-z?]+)(?:\s+(.*))?\s*", re.DOTALL)
_KEYS = (
    ("Alt-Enter, Ctrl-J", 'a new line; a block between two """ is one message, too'),
    ("@", "completes the path of a picture; a file can also be dropped into the line"),
    ("Ctrl-V", "takes a picture from the clipboard"),
    ("Ctrl-R", "searches what was typed before"),
    ("Ctrl-C", "stops an answer; twice at an empty prompt, or Ctrl-D, leaves"),
)


def show_help(chat: Chat, argument: str) -> None:
    """Show all commands and keys, or one command."""
    if argument:
        command = find_command(argument.removeprefix("/"))
        chat.tell(f"{command.usage}: {command.help}", *(f"also /{alias}" for alias in command.aliases))
        return
    width = chat.console.status_width
    chat.tell(*align([(command.usage, command.help) for command in COMMANDS], width), "")
    chat.tell(*align(_KEYS, width), "", "<image> in a message marks where a picture stands; else pictures come first.")


def offer_commands(_: Chat, _typed: str) -> list[str]:
    """Offer the commands' names."""
    return [command.name for command in COMMANDS]


def clear_screen(chat: Chat, _: str) -> None:
    """Clear the screen; the conversation stays."""
    chat.clear_screen()


def leave(chat: Chat, _: str) -> None:
    """Leave the chat."""
    chat.leaving = True


COMMANDS = (
    *pictures.COMMANDS,
    *answers.COMMANDS,
    *tuning.COMMANDS,
    *keeping.COMMANDS,
    SlashCommand("clear", "", "clear the screen; the conversation stays", clear_screen),
    SlashCommand("help", "[COMMAND]", "show this", show_help, ("?",), offer_commands),
    SlashCommand("exit", "", "leave", leave, ("quit", "bye", "q")),
)
_BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}


def split_command(line: str) -> tuple[str, str] | None:
    """Split a line into a command's name and argument; None when it is a message. A path like `/a/b` is none."""
    match = _COMMAND.fullmatch(line.strip())
    return (match[1].lower(), (match[2] or "").strip()) if match else None


def find_command(name: str) -> SlashCommand:
    """Return the command of that name.

    Raises:
        UsageError: there is none; the hint names the nearest.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.5)
    hint = f"did you mean /{near[0]}?" if near else "/help lists all commands"
    raise UsageError(f"there is no command /{name}", hint)


def run_command(chat: Chat, name: str, argument: str) -> None:
    """Run a command.

    Raises:
        DsvlError: there is none of that name, its argument is wrong, or it failed.
    """
    command = find_command(name)
    command.check(argument)
    command.run(chat, argument)

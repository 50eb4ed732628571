"""The slash command type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dsvl_cli.terminal.chat.chat import Chat


def offer_nothing(_: Chat, _typed: str) -> Iterable[str]:
    """Offer no completion."""
    return ()


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """A command of the chat, as data from which help and completion are generated.

    Attributes:
        name: without the slash.
        arguments: their syntax, in square brackets if optional; empty if there are none.
        help: one line.
        run: called with the text after the name, stripped. Raises DsvlError.
        aliases: other names.
        complete: returns completions for the last word of the text after the name; `PATH` in the syntax adds file
            names.
    """

    name: str
    arguments: str
    help: str
    run: Callable[[Chat, str], None]
    aliases: tuple[str, ...] = ()
    complete: Callable[[Chat, str], Iterable[str]] = offer_nothing

    @property
    def usage(self) -> str:
        """The command with its arguments."""
        return f"/{self.name} {self.arguments}".rstrip()

    def check(self, argument: str) -> None:
        """Check whether an argument is required or not allowed.

        Raises:
            UsageError: the argument is missing or unexpected.
        """
        if argument and not self.arguments:
            raise UsageError(f"/{self.name} takes no arguments", f"type {self.usage}")
        if not argument and self.arguments and not self.arguments.startswith("["):
            raise UsageError(f"/{self.name} needs {self.arguments}", f"type {self.usage}")


def read_number(text: str) -> int:
    """Parse the number of a picture.

    Raises:
        UsageError: it is not a number.
    """
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{text!r} is not a picture number", "/images lists the pictures")
    return int(text)


def offer_numbers(chat: Chat, typed: str) -> Iterable[str]:
    """Offer picture numbers for the first word."""
    return () if " " in typed else [str(entry.number) for entry in chat.dialogue.pictures()]

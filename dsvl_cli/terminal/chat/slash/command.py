"""What a slash command is."""

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
    """One command of the chat, as data: help and completion are made of it.

    Attributes:
        name: without the slash.
        arguments: their syntax; in square brackets where they can be left out, empty where there are none.
        help: one line.
        run: does it; gets what stands behind the name, stripped. Raises DsvlError.
        aliases: other names.
        complete: offers whole words for the last word of what was typed behind the name; `PATH` in the syntax makes
            file names being offered besides.
    """

    name: str
    arguments: str
    help: str
    run: Callable[[Chat, str], None]
    aliases: tuple[str, ...] = ()
    complete: Callable[[Chat, str], Iterable[str]] = offer_nothing

    @property
    def usage(self) -> str:
        """How it is typed."""
        return f"/{self.name} {self.arguments}".rstrip()

    def check(self, argument: str) -> None:
        """Refuse an argument where there is none, and none where there must be one.

        Raises:
            UsageError: as said.
        """
        if argument and not self.arguments:
            raise UsageError(f"/{self.name} takes no argument", f"type {self.usage}")
        if not argument and self.arguments and not self.arguments.startswith("["):
            raise UsageError(f"/{self.name} needs {self.arguments}", f"type {self.usage}")


def read_number(text: str) -> int:
    """Read a picture's number.

    Raises:
        UsageError: it is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{text!r} is no picture's number", "/images lists the pictures")
    return int(text)


def offer_numbers(chat: Chat, typed: str) -> Iterable[str]:
    """Offer the pictures' numbers as the first word."""
    return () if " " in typed else [str(entry.number) for entry in chat.dialogue.pictures()]

"""How an answer is written while it comes: the choice between Markdown and plain text, and the plain text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dsvl_cli.terminal.console import Console

# A sentence's end with what closes it, or a line's.
_SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]]*\s|[。！？]|\n""")


class AnswerStream(Protocol):
    """Takes an answer piece by piece."""

    def write(self, text: str) -> None:
        """Show a piece; it may be cut anywhere."""
        ...

    def close(self, interrupted: bool = False) -> None:
        """Show what is left, and end the line."""
        ...


class PlainStream:
    """Writes an answer as it comes, ended by exactly one newline.

    Args:
        console: where to.
        sentences: write whole sentences, for screen readers, instead of every piece.
    """

    def __init__(self, console: Console, *, sentences: bool = False) -> None:
        self._console = console
        self._sentences = sentences
        self._held = ""

    def write(self, text: str) -> None:
        """Write what is due; line breaks at the end wait for what follows them."""
        text = self._held + text
        due = self._due(text)
        self._held = text[due:]
        if due:
            self._console.write(text[:due])

    def close(self, interrupted: bool = False) -> None:
        """Write the rest, and one newline."""
        self._console.write(self._held.rstrip("\r\n") + "\n")
        self._held = ""
        if interrupted:
            self._console.status("(interrupted)")

    def _due(self, text: str) -> int:
        if self._sentences:
            ends = [match.end() for match in _SENTENCE_END.finditer(text)]
            text = text[: ends[-1]] if ends else ""
        return len(text.rstrip("\r\n"))


def open_answer(console: Console, *, plain: bool = False) -> AnswerStream:
    """Choose how an answer is written: drawn Markdown where the terminal can, plain text elsewhere or if asked to."""
    if plain or console.plain:
        return PlainStream(console, sentences=console.answer_is_terminal)
    if not (console.can_redraw and console.colour and console.answer_is_unicode):
        return PlainStream(console)
    from dsvl_cli.terminal.markdown import MarkdownStream

    return MarkdownStream(console)

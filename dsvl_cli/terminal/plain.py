"""Streams answers as plain text, and chooses between that and Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dsvl_cli.terminal.console import Console

# The end of a sentence with closing quotes and brackets, or the end of a line.
_SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]]*\s|[。！？]|\n""")


class AnswerStream(Protocol):
    """Receives an answer piece by piece."""

    def write(self, text: str) -> None:
        """Show a piece, which may be split anywhere."""
        ...

    def close(self, interrupted: bool = False) -> None:
        """Show the rest and end the line."""
        ...


class PlainStream:
    """Writes an answer as it is generated, ending with exactly one newline.

    Args:
        console: where to write it.
        sentences: write whole sentences instead of every piece, for screen readers.
    """

    def __init__(self, console: Console, *, sentences: bool = False) -> None:
        self._console = console
        self._sentences = sentences
        self._held = ""

    def write(self, text: str) -> None:
        """Write what is complete; trailing line breaks are held back until more follows."""
        text = self._held + text
        due = self._due(text)
        self._held = text[due:]
        if due:
            self._console.write(text[:due])

    def close(self, interrupted: bool = False) -> None:
        """Write the rest and one newline."""
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
    """Choose how to show an answer: as Markdown if the terminal supports it, else or if `plain` as plain text."""
    if plain or console.plain:
        return PlainStream(console, sentences=console.answer_is_terminal)
    if not (console.can_redraw and console.colour and console.answer_is_unicode):
        return PlainStream(console)
    from dsvl_cli.terminal.markdown import MarkdownStream

    return MarkdownStream(console)

"""Formats a conversation as Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dsvl_cli.engine.conversation import Picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from markdown_it.token import Token

    from dsvl_cli.engine.conversation import FinishReason, Message
    from dsvl_cli.sessions.session import SavedSession

SPEAKERS = {"user": "You", "assistant": "Model"}
# Notes for answers that did not end by themselves.
ENDINGS: dict[FinishReason | None, str] = {"interrupted": "interrupted", "length": "cut at the token limit"}

# The ends of HTML blocks that a blank line does not end: https://spec.commonmark.org/0.31.2/#html-blocks
_HTML_ENDS = ("-->", "?>", "]]>", ">", "</pre>")


def to_markdown(session: SavedSession, show_picture: Callable[[Picture], str]) -> str:
    """Format each message as a heading and its unchanged text.

    Args:
        session: what to write.
        show_picture: returns the Markdown for a picture.

    Returns:
        The document, ending with a newline.
    """
    system = session.conversation.system
    blocks = [f"# {escape_line(session.heading)}", escape_line(describe(session))]
    if system:
        blocks += ["## System", close_blocks(system)]
    for message in session.conversation.messages:
        blocks += _blocks(message, show_picture)
    return "\n\n".join(blocks) + "\n"


def describe(session: SavedSession) -> str:
    """Return the session's id, model and start time in one line."""
    begun = session.created.astimezone()
    return ", ".join(filter(None, (session.id, session.model, f"{begun:%Y-%m-%d %H:%M}")))


def escape_line(text: str) -> str:
    """Escape text into a single line without markup, for a title or a name."""
    return re.sub(r"([\\\[\]`*_<&!#])", r"\\\1", " ".join(text.split()))


def close_blocks(text: str) -> str:
    """Close a code block, comment or tag that the text leaves open and that would absorb what follows."""
    text = text.strip("\n")
    closed = (f"{text}\n{end}" for end in (*_fence_end(text), *_HTML_ENDS))
    return text if _ends_itself(text) else next(filter(_ends_itself, closed), text)


def _ends_itself(text: str) -> bool:
    """Whether a heading after the text would be recognized."""
    tokens = _parse(f"{text}\n\n# end")
    return tokens[-1].type == "heading_close" and tokens[-1].level == 0


def _fence_end(text: str) -> list[str]:
    return [token.markup for token in _parse(text)[-1:] if token.type == "fence"]


def _parse(text: str) -> list[Token]:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").parse(text)


def _blocks(message: Message, show_picture: Callable[[Picture], str]) -> list[str]:
    blocks = [f"## {SPEAKERS[message.role]}"]
    blocks += [show_picture(part) if isinstance(part, Picture) else close_blocks(part) for part in message.parts]
    if message.finish_reason in ENDINGS:
        blocks.append(f"*({ENDINGS[message.finish_reason]})*")
    return [block for block in blocks if block]

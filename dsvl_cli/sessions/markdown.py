"""A conversation as Markdown."""

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
# What is said of an answer that did not end by itself.
ENDINGS: dict[FinishReason | None, str] = {"interrupted": "interrupted", "length": "cut at the token limit"}

# What ends an HTML block that blank lines do not end: https://spec.commonmark.org/0.31.2/#html-blocks
_HTML_ENDS = ("-->", "?>", "]]>", ">", "</pre>")


def to_markdown(session: SavedSession, show_picture: Callable[[Picture], str]) -> str:
    """Write a heading for each turn, and beneath it what was said, unchanged.

    Args:
        session: what to write.
        show_picture: gives the Markdown of a picture.

    Returns:
        The document, ended by a newline.
    """
    system = session.conversation.system
    blocks = [f"# {escape_line(session.heading)}", escape_line(describe(session))]
    if system:
        blocks += ["## System", close_blocks(system)]
    for message in session.conversation.messages:
        blocks += _blocks(message, show_picture)
    return "\n\n".join(blocks) + "\n"


def describe(session: SavedSession) -> str:
    """Say in one line which session it is, with which model, and when."""
    begun = session.created.astimezone()
    return ", ".join(filter(None, (session.id, session.model, f"{begun:%Y-%m-%d %H:%M}")))


def escape_line(text: str) -> str:
    """Make foreign text one line without any markup, for a title or a name."""
    return re.sub(r"([\\\[\]`*_<&!#])", r"\\\1", " ".join(text.split()))


def close_blocks(text: str) -> str:
    """Close a code block, comment or tag that the text leaves open and that would swallow what follows."""
    text = text.strip("\n")
    closed = (f"{text}\n{end}" for end in (*_fence_end(text), *_HTML_ENDS))
    return text if _ends_itself(text) else next(filter(_ends_itself, closed), text)


def _ends_itself(text: str) -> bool:
    """Tell whether a heading after the text would be one."""
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

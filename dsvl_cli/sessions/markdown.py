"""Formats a conversation as Markdown."""

from __future__ import annotations

import re
from itertools import groupby
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

_TRIES = 3
# What begins a tag, unless it is an address in angle brackets, or a picture; with the backslashes before it.
_MARKUP = re.compile(r"(\\*)(<(?!https?://[^\s<>]*>)(?=[A-Za-z/!?])|!(?=\[))")
_CODE_SPAN = re.compile(r"((?<![`\\])(`+)(?!`)(?:(?!\n[ \t]*\n)[\s\S])+?(?<!`)\2(?!`))")


def to_markdown(session: SavedSession, show_picture: Callable[[Picture], str]) -> str:
    """Format each message as a heading and its text, in which raw HTML and pictures are escaped.

    Args:
        session: what to write.
        show_picture: returns the Markdown for a picture.

    Returns:
        The document, ending with a newline.
    """
    system = session.conversation.system
    blocks = [f"# {escape_line(session.heading)}", escape_line(describe(session))]
    if system:
        blocks += ["## System", close_blocks(make_harmless(system))]
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


def make_harmless(text: str) -> str:
    """Escape raw HTML and pictures in Markdown, which would load or run something where it is shown; code stays.

    A page that shows the export would fetch a picture that a model or a stranger wrote, and so tell that it was read.
    """
    escaped = _escape(text, code_spans=True)
    if not _is_harmless(escaped):  # a tag that was in no code span after all
        escaped = _escape(text, code_spans=False)
    for _ in range(_TRIES):
        if _is_harmless(escaped):
            return escaped
        # A block of HTML that is none any more had hidden what follows it.
        escaped = _escape(escaped, code_spans=False)
    return "\n".join(_escape_markup(line) for line in escaped.split("\n"))


def _escape(text: str, *, code_spans: bool) -> str:
    """Escape markup, except in blocks of code, and in code spans if `code_spans`."""
    lines = text.split("\n")
    is_code = [False] * (len(lines) + 1)
    for token in _parse(text):
        if token.type in ("fence", "code_block") and token.map:
            start, end = token.map
            is_code[start:end] = [True] * (end - start)
    result: list[str] = []
    for code, group in groupby(enumerate(lines), key=lambda entry: is_code[entry[0]]):
        piece = "\n".join(line for _, line in group)
        if not code:
            pieces = _CODE_SPAN.split(piece) if code_spans else [piece]
            # The pattern has two groups: of each three pieces the first is text, the second a code span.
            piece = "".join(
                part if index % 3 == 1 else _escape_markup(part) for index, part in enumerate(pieces) if index % 3 < 2
            )
        result.append(piece)
    return "\n".join(result)


def _escape_markup(text: str) -> str:
    return _MARKUP.sub(lambda match: match.group() if len(match[1]) % 2 else f"{match[1]}\\{match[2]}", text)


def _is_harmless(text: str) -> bool:
    tokens = [each for token in _parse(text) for each in (token, *(token.children or ()))]
    return not any(token.type in ("html_block", "html_inline", "image") for token in tokens)


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
    blocks += [
        show_picture(part) if isinstance(part, Picture) else close_blocks(make_harmless(part)) for part in message.parts
    ]
    if message.finish_reason in ENDINGS:
        blocks.append(f"*({ENDINGS[message.finish_reason]})*")
    return [block for block in blocks if block]

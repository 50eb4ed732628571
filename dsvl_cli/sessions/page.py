"""Formats a conversation as a self-contained HTML page without scripts or external resources."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.sessions.markdown import ENDINGS, SPEAKERS, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsvl_cli.engine.conversation import Message
    from dsvl_cli.sessions.session import SavedSession

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
header p, figcaption, .ending { font-size: .85rem; opacity: .75; }
section { margin: 1.2rem 0; overflow-wrap: anywhere; unicode-bidi: isolate; }
section > h2 { font-size: .85rem; margin: 0 0 .3rem; opacity: .75; }
.user, .system { background: var(--soft); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem 1rem; }
.plain { white-space: pre-wrap; margin: 0; }
figure { margin: .5rem 0; }
img { max-width: 100%; height: auto; border-radius: .4rem; }
pre { overflow-x: auto; background: var(--soft); border: 1px solid var(--line); border-radius: .4rem; padding: .7rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; }
@media print { .user, .system, pre { break-inside: avoid; } }
"""


def to_page(session: SavedSession, address: Callable[[Picture], str], image_sources: str) -> str:
    """Format the page. Answers are rendered as Markdown, user messages as plain text.

    Args:
        session: what to write.
        address: returns the URL of a picture.
        image_sources: the sources for pictures in the content security policy, which otherwise only allows the page's
            own style.

    Returns:
        The document, ending with a newline.
    """
    title = escape(session.heading)
    style_hash = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src {image_sources}; style-src 'sha256-{style_hash}'; base-uri 'none'"
    system = session.conversation.system
    sections = [_section("system", "System", f'<p class="plain">{escape(system)}</p>')] if system else []
    sections += [_turn(message, address) for message in session.conversation.messages]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="">',  # the language is unknown
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="referrer" content="no-referrer">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            f'<header><h1 dir="auto">{title}</h1><p>{escape(describe(session))}</p></header>',
            "<main>",
            *sections,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _turn(message: Message, address: Callable[[Picture], str]) -> str:
    parts = [_part(part, message, address) for part in message.parts]
    if message.finish_reason in ENDINGS:
        parts.append(f'<p class="ending">({ENDINGS[message.finish_reason]})</p>')
    return _section(message.role, SPEAKERS[message.role], "\n".join(parts))


def _section(kind: str, speaker: str, body: str) -> str:
    return f'<section class="{kind}" dir="auto">\n<h2>{speaker}</h2>\n{body}\n</section>'


def _part(part: str | Picture, message: Message, address: Callable[[Picture], str]) -> str:
    if isinstance(part, Picture):
        name = escape(part.name)
        size = f'width="{part.width}" height="{part.height}"'
        return (
            f'<figure><img src="{escape(address(part))}" alt="{name}" {size}><figcaption>{name}</figcaption></figure>'
        )
    return _render(part) if message.role == "assistant" else f'<p class="plain">{escape(part)}</p>'


def _render(text: str) -> str:
    from markdown_it import MarkdownIt

    # Without "html", tags are escaped. markdown-it itself rejects URLs such as `javascript:`. Images in an answer would
    # reveal to a third party that the page was opened.
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    rendered: str = parser.render(text)
    return rendered

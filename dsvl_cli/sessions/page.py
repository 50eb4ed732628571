"""Formats a conversation as a self-contained HTML page without scripts or external resources."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.sessions.markdown import ENDINGS, SPEAKERS, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from markupsafe import Markup

    from dsvl_cli.engine.conversation import Picture
    from dsvl_cli.sessions.session import SavedSession


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
    # Not for those who only list what is kept.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style = Path(__file__).with_name("page.css").read_text("utf-8")
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template("page.html.j2").render(
        policy=f"default-src 'none'; img-src {image_sources}; style-src 'sha256-{style_hash}'; base-uri 'none'",
        style=Markup(style),
        session=session,
        about=describe(session),
        speakers=SPEAKERS,
        endings=ENDINGS,
        address=address,
        render_markdown=_render_markdown,
    )


def _render_markdown(text: str) -> Markup:
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    # Without "html", tags are escaped. markdown-it itself rejects URLs such as `javascript:`. Images in an answer would
    # reveal to a third party that the page was opened.
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    return Markup(parser.render(text))

"""Renders rows as a self-contained HTML page. Does not import torch.

The templates are `report.html.j2` and, for each row, `card.html.j2`. Filtering by status is plain HTML and CSS; only
searching, sorting and filtering by value need the inline script. The page is designed for a hundred thousand rows:
browsers only lay out the cards near the viewport, and the script leaves but some hundreds in the page at a time.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dsvl_cli.batch.output.disk import explained
from dsvl_cli.batch.output.report_values import Columns
from dsvl_cli.batch.row import ONLY, Row, Status
from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.pictures.images import decode, picture_from_bytes
from dsvl_cli.engine.storage.files import find_leftovers, new_file, remove_leftovers
from dsvl_cli.errors import DsvlError, ImageError

THUMBNAIL_PIXELS = 160
_QUALITY = 60
_PIECE_CHARACTERS = 2**20
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NAMES: dict[Status, str] = {"answered": "answered", "suspect": "suspect", "error": "errors"}


def write_report(
    path: Path,
    rows: Iterable[Row],
    thumbnail_of: Callable[[Row], bytes | None],
    *,
    title: str = "dsvl batch",
    about: str = "",
) -> None:
    """Write the page; an existing report is replaced once the new one is complete.

    Args:
        path: the page; no other process may write it meanwhile.
        rows: in display order; consumed one at a time.
        thumbnail_of: returns a row's thumbnail as made by `make_thumbnail`, or None.
        title: the heading of the page.
        about: the line below it, such as time, place and settings.

    Raises:
        DsvlError: the page cannot be written.
    """
    check_report(path)
    remove_leftovers(find_leftovers(path.parent), path)
    # The counts are only known at the end, but shown at the top.
    with (
        explained(path),
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", newline="", dir=path.parent) as cards,
        new_file(path) as page,
    ):
        columns = Columns()
        counts, first = _write_cards(cards, rows, thumbnail_of, columns)
        cards.seek(0)
        pieces = iter(lambda: Markup(cards.read(_PIECE_CHARACTERS)), "")
        for text in _page(title, about, counts, first, columns, pieces):
            page.write(text.encode("utf-8", "replace"))


def check_report(path: Path) -> None:
    """Refuse to replace anything but a page.

    Raises:
        DsvlError: the file exists, and is neither empty nor a page.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(1024).lstrip().lower()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise DsvlError(f"{path} cannot be written: {exc.strerror or exc}") from exc
    if beginning and not beginning.startswith(b"<!doctype html"):
        raise DsvlError(f"{path} exists and is not a report; it was left as it is", "give another file with --report")


def make_thumbnail(data: bytes, read_picture: Callable[[bytes, str], Picture] = picture_from_bytes) -> bytes | None:
    """Return a WebP of at most 160 x 160 pixels of an encoded picture, or None if it cannot be decoded."""
    try:
        image = decode(read_picture(data, "")).copy()
    except ImageError:
        return None
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def _write_cards(
    file: TextIO, rows: Iterable[Row], thumbnail_of: Callable[[Row], bytes | None], columns: Columns
) -> tuple[Counter[Status], Row | None]:
    """Write the cards of the rows; return the counts by status, and the first row."""
    counts: Counter[Status] = Counter()
    first = None
    for row in rows:
        first = first or row
        counts[row.status] += 1
        file.write(_card(row, thumbnail_of(row), first, columns))
    return counts, first


@cache
def _templates() -> Environment:
    """Load the templates. They escape inserted values and replace control characters by visible ones."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        auto_reload=False,
        autoescape=True,
        finalize=_make_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _card_macro() -> Any:
    module: Any = _templates().get_template("card.html.j2").module
    return module.card


def _make_visible(value: object) -> object:
    return _UNSEEN.sub(_visible, value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "\ufffd"


def _page(
    title: str, about: str, counts: Counter[Status], first: Row | None, columns: Columns, cards: Iterable[Markup]
) -> Iterable[str]:
    """Render the page in pieces."""
    style, script = (Path(__file__).with_name(name).read_text("utf-8") for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    model = f"model {first.model}" if first and first.model else ""
    choices = [("all", "all", counts.total()), *((kind, name, counts[kind]) for kind, name in _NAMES.items())]
    template = _templates().get_template("report.html.j2")
    return template.generate(
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        title=title,
        about=" · ".join(filter(None, (model, about))),
        questions=_questions(first) if first else [],
        choices=[(kind, name, f"{count:,}") for kind, name, count in choices],
        orders=[column for column in columns if column.is_order],
        first=columns.find_first(),
        filters=[column for column in columns if column.is_filter],
        cards=cards,
    )


def _hash(text: str) -> str:
    """Return the hash of a text as written in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _card(row: Row, thumbnail: bytes | None, first: Row, columns: Columns) -> str:
    answers, keys = columns.add(row)
    folder, slash, name = row.path.rpartition("/")
    size = f"{row.width} × {row.height}" if row.width else ""
    tokens = sum(answer.tokens or 0 for answer in row.answers.values())
    rendered: Markup = _card_macro()(
        row,
        answers=answers,
        keys=keys,
        picture=Markup(f"data:image/webp;base64,{base64.b64encode(thumbnail).decode()}") if thumbnail else "",
        folder=_show_name(folder + slash),
        name=_show_name(name),
        message=row.error.message.removeprefix(f"{row.path}: ") if row.error else "",
        questions=_questions(row) if row.is_flat and row.prompts != first.prompts else [],
        facts=" · ".join(filter(None, (size, f"{tokens:,} tokens" if tokens else ""))),
    )
    return rendered


def _questions(row: Row) -> list[tuple[str, str]]:
    return [("prompt" if name == ONLY else name, prompt) for name, prompt in row.prompts.items()]


def _show_name(name: str) -> str:
    """Make line feeds and tabs in a name visible."""
    return name.replace("\n", "\u240a").replace("\t", "\u2409")

"""Exports a conversation to a file: Markdown, an HTML page, or lossless JSON."""

from __future__ import annotations

import base64
import json
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.storage.files import new_file, remove_abandoned
from dsvl_cli.errors import DsvlError
from dsvl_cli.sessions.markdown import escape_line, to_markdown
from dsvl_cli.sessions.page import to_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dsvl_cli.engine.conversation import Message
    from dsvl_cli.sessions.session import SavedSession

FORMATS = (".md", ".html", ".json")
JSON_SCHEMA = "dsvl.session/1"

# The first bytes of a file, its media type and its suffix. https://mimesniff.spec.whatwg.org/#image-type-pattern-matching-algorithm
_SIGNATURES = (
    (rb"\x89PNG\r\n\x1a\n", "image/png", ".png"),
    (rb"\xff\xd8\xff", "image/jpeg", ".jpg"),
    (rb"GIF8[79]a", "image/gif", ".gif"),
    (rb"RIFF....WEBP", "image/webp", ".webp"),
    (rb"BM", "image/bmp", ".bmp"),
    (rb"II\*\0|MM\0\*", "image/tiff", ".tiff"),
    (rb"....ftypavi[fs]", "image/avif", ".avif"),
    (rb"....ftyp(?:heic|heix|mif1)", "image/heic", ".heic"),
)


def export_session(session: SavedSession, path: Path, *, embed: bool = True, overwrite: bool = False) -> None:
    """Write a session to a file in the format given by its suffix.

    Args:
        session: what to write.
        path: ends in `.md`, `.html` or `.json`.
        embed: embed the pictures in the file; otherwise write them to the folder `<stem>_pictures` next to it.
        overwrite: replace an existing file.

    Raises:
        DsvlError: the suffix is unknown, the file exists, or it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DsvlError(f"unknown export format: {path}", "use a name ending in .md, .html or .json")
    folder = path.with_name(f"{path.stem}_pictures")
    beside = {} if embed else _file_names(session)
    for target in (path, folder) if beside else (path,):
        if not overwrite and os.path.lexists(target):
            raise DsvlError(f"{target} already exists", "choose another name, or add --overwrite")

    def address(picture: Picture) -> str:
        if embed:
            return f"data:{media_type(picture)};base64,{base64.b64encode(picture.data).decode()}"
        return f"{quote(os.fsencode(folder.name))}/{beside[picture.sha256]}"

    try:
        for picture in session.conversation.pictures if beside else ():
            folder.mkdir(exist_ok=True)
            _replace(folder / beside[picture.sha256], picture.data)
        _replace(path, _document(session, suffix, address, embed=embed))
    except OSError as exc:
        raise DsvlError(f"{path} cannot be written: {exc.strerror}", "choose another location") from exc


def media_type(picture: Picture) -> str:
    """Return the media type by the first bytes, such as `image/png`, or `application/octet-stream` if unknown."""
    return _kind(picture)[0]


def _kind(picture: Picture) -> tuple[str, str]:
    for signature, kind, suffix in _SIGNATURES:
        if re.match(signature, picture.data, re.DOTALL):
            return kind, suffix
    return "application/octet-stream", ".bin"


def _file_names(session: SavedSession) -> dict[str, str]:
    """Choose a file name for each picture, by SHA-256: its first number, as its own name cannot be trusted."""
    names: dict[str, str] = {}
    for number, picture in zip(session.conversation.numbers(), session.conversation.pictures, strict=False):
        names.setdefault(picture.sha256, f"{number}{_kind(picture)[1]}")
    return names


def _document(session: SavedSession, suffix: str, address: Callable[[Picture], str], *, embed: bool) -> bytes:
    if suffix == ".md":
        text = to_markdown(session, lambda picture: f"![{escape_line(picture.name)}]({address(picture)})")
        return text.encode("utf-8", "replace")
    if suffix == ".html":
        return to_page(session, address, "data:" if embed else "'self' file:").encode("utf-8", "replace")
    text = json.dumps(_json(session, address, embed=embed), ensure_ascii=False, indent=1)
    return (text + "\n").encode("utf-8", "backslashreplace")  # a lone surrogate becomes \udcxx, its JSON escape


def _json(session: SavedSession, address: Callable[[Picture], str], *, embed: bool) -> dict[str, Any]:
    numbers = session.conversation.numbers()
    return {
        "schema": JSON_SCHEMA,
        "id": session.id,
        "name": session.name,
        "model": session.model,
        "created": session.created.isoformat(),
        "updated": session.updated.isoformat(),
        "system": session.conversation.system,
        "messages": [
            _json_message(message, numbers, address, embed=embed) for message in session.conversation.messages
        ],
    }


def _json_message(
    message: Message, numbers: Iterator[int], address: Callable[[Picture], str], *, embed: bool
) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, Picture):
            content = {"data": base64.b64encode(part.data).decode()} if embed else {"file": address(part)}
            parts.append(
                {
                    "type": "image",
                    "number": next(numbers),
                    "name": part.name,
                    "media_type": media_type(part),
                    "sha256": part.sha256,
                    "width": part.width,
                    "height": part.height,
                    "notes": part.notes,
                    **content,
                }
            )
        else:
            parts.append({"type": "text", "text": part})
    return {
        "role": message.role,
        "parts": parts,
        "token_ids": message.token_ids,
        "model": message.model,
        "finish_reason": message.finish_reason,
    }


def _replace(path: Path, data: bytes) -> None:
    remove_abandoned(path.parent)
    with new_file(path) as file:
        file.write(data)

"""Addresses that need no network: `file:`, which names a file, and `data:`, which holds the picture itself."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from urllib.parse import unquote, unquote_to_bytes

from dsvl_cli.engine.pictures.access import shown_address
from dsvl_cli.errors import ImageError

_DATA_URL = re.compile(r"data:[^,]*?(;base64)?,", re.IGNORECASE)
_HASH_DIGITS = 16


def is_data_address(source: str) -> bool:
    """Whether a source is an address that holds its data."""
    return source[:5].lower() == "data:"


def is_file_address(source: str) -> bool:
    """Whether a source is the address of a file on this machine."""
    return source[:7].lower() == "file://"


def local_path(source: str) -> str:
    """Return the path that the address of a file means, and anything else unchanged."""
    if not is_file_address(source):
        return source
    path = unquote(source[7:].removeprefix("localhost"), errors="surrogateescape")
    # file:///C:/x names C:/x
    return path[1:] if os.name == "nt" and re.match(r"/[A-Za-z]:", path) else path


def shown_data_address(address: str) -> str:
    """Return the short form that stands for a data address in messages and rows: its type, and a hash of its data."""
    kind = re.split("[;,]", address[5:], maxsplit=1)[0].strip() or "text/plain"
    digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"data:{kind}#{digest}"


def shown_source(source: str) -> str:
    """Return how any source is shown: see `shown_address` and `shown_data_address`."""
    return shown_data_address(source) if is_data_address(source) else shown_address(source)


def decode_data_address(address: str) -> bytes:
    """Return the data of a data address.

    Raises:
        ImageError: it has none, or it is not base64 although it says so.
    """
    head = _DATA_URL.match(address)
    if head is None:
        raise ImageError("a data URL without data")
    payload = address[head.end() :]
    if head[1] is None:
        return unquote_to_bytes(payload)
    try:
        return base64.b64decode("".join(unquote(payload).split()), validate=True)
    except ValueError as exc:
        raise ImageError("a data URL that is not base64, or is cut off") from exc

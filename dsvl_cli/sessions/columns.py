"""How the values of a session are stored in columns: as bytes of text, of JSON or of token ids.

What unpacks a value raises TypeError, ValueError, RecursionError or struct.error if dsvl never wrote it; see
`schema.explained_errors`.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def pack(text: str) -> bytes:
    """Encode any string, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def unpack(data: bytes) -> str:
    """Decode the result of `pack`."""
    return str(data, "utf-8", "surrogatepass")


def pack_optional(text: str | None) -> bytes | None:
    """Encode a string, if there is one."""
    return None if text is None else pack(text)


def unpack_optional(data: bytes | None) -> str | None:
    """Decode the result of `pack_optional`."""
    return None if data is None else unpack(data)


def pack_settings(settings: Mapping[str, Any]) -> bytes:
    """Encode JSON values by name."""
    return pack(json.dumps(settings, ensure_ascii=False, sort_keys=True))


def unpack_settings(data: bytes | None) -> dict[str, Any]:
    """Decode the result of `pack_settings`; a session of format 1 has none."""
    settings = {} if data is None else json.loads(unpack(data))
    if not isinstance(settings, dict):
        raise ValueError("not settings")
    return settings


def pack_numbers(numbers: set[int]) -> bytes | None:
    """Encode the numbers of pictures, if there are any."""
    return pack(json.dumps(sorted(numbers))) if numbers else None


def unpack_numbers(data: bytes | None) -> set[int]:
    """Decode the result of `pack_numbers`."""
    return set() if data is None else set(_unpack_list(data, int))


def pack_notes(notes: Sequence[str]) -> bytes:
    """Encode the notes on a picture."""
    return pack(json.dumps(notes, ensure_ascii=False))


def unpack_notes(data: bytes) -> tuple[str, ...]:
    """Decode the result of `pack_notes`."""
    return tuple(_unpack_list(data, str))


def _unpack_list(data: bytes, kind: type) -> list[Any]:
    items = json.loads(unpack(data))
    if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
        raise ValueError(f"not a list of {kind.__name__}")
    return items


def pack_ids(ids: Sequence[int] | None) -> bytes | None:
    """Encode token ids as unsigned 32-bit integers, little-endian, if there are any."""
    return None if ids is None else struct.pack(f"<{len(ids)}I", *ids)


def unpack_ids(data: bytes | None) -> tuple[int, ...] | None:
    """Decode the result of `pack_ids`."""
    return None if data is None else struct.unpack(f"<{len(data) // 4}I", data)

"""Tells ordinary pictures from those whose decoding may take long or much memory, without decoding anything.

Ordinary is a JPEG, PNG, WebP, BMP or small GIF of at most 64 megapixels with few and small parts around its pixels.
Pillow decodes these in C, in time and memory that follow from their size. It reads the other formats, and whatever
surrounds the pixels, in Python, at a cost that a file can choose.
"""

from __future__ import annotations

import struct

MAX_PIXELS = 64 * 10**6
_MAX_BYTES = 64 * 2**20
_MAX_PARTS = 20_000  # of a whole file; PNGs are often written in parts of 8 KiB
_MAX_SEGMENTS = 200
_MAX_HEADER_BYTES = 2**20
_MAX_GIF_BYTES = 2**20
_PIXEL_PARTS = (b"IDAT", b"fdAT", b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def ordinary_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of an ordinary picture, which may still be damaged; None for any other file."""
    if len(data) > _MAX_BYTES:
        return None
    try:
        size = _size(data)
    except (struct.error, IndexError):
        return None
    return size if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS else None


def _size(data: bytes) -> tuple[int, int] | None:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        width, height = struct.unpack_from(">II", data, 16)
        return (width, height) if _has_few_parts(data, 8, ">I4s", 12) else None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data) if _has_few_parts(data, 12, "<4sI", 8) else None
    if data.startswith(b"BM"):
        return _bmp_size(data)
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) <= _MAX_GIF_BYTES:
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    return None


def _has_few_parts(data: bytes, place: int, layout: str, overhead: int) -> bool:
    """Whether a PNG or WebP has a usual number of parts, and little in those that are no pixels."""
    around = 0
    for _ in range(_MAX_PARTS):
        if place + 8 > len(data):
            return True
        first, second = struct.unpack_from(layout, data, place)
        kind, length = (first, second) if isinstance(first, bytes) else (second, first)
        if kind not in _PIXEL_PARTS:
            around += length + overhead
        if around > _MAX_HEADER_BYTES:
            return False
        place += overhead + length + (length % 2 if overhead == 8 else 0)
    return False


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place, size = 2, None
    for _ in range(_MAX_SEGMENTS):
        if place > _MAX_HEADER_BYTES or data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xDA:  # the pixels begin
            return size
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, place + 5)
            size = width, height
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bmp_size(data: bytes) -> tuple[int, int] | None:
    header, width, height, _, _, compression = struct.unpack_from("<IiiHHI", data, 14)
    is_uncompressed = header >= 40 and compression in (0, 3)  # run lengths are decoded in Python
    return (abs(width), abs(height)) if is_uncompressed else None

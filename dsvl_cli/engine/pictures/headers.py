"""Tells ordinary pictures from those whose decoding may take long or much memory, without decoding anything.

Ordinary is a JPEG, PNG, WebP, BMP, TIFF, binary PPM or small GIF of at most 64 megapixels with few and small parts
around its pixels. Pillow decodes these in C, in time and memory that follow from their size. It reads some of the other
formats, and whatever surrounds the pixels, in Python, at a cost that a file can choose.
"""

from __future__ import annotations

import re
import struct

MAX_PIXELS = 64 * 10**6
_MAX_BYTES = 64 * 2**20
_MAX_PARTS = 20_000  # of a whole file; PNGs are often written in parts of 8 KiB
_MAX_SEGMENTS = 200
_MAX_HEADER_BYTES = 2**20
_MAX_GIF_BYTES = 2**20
_PIXEL_PARTS = (b"IDAT", b"fdAT", b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
_MAX_TAGS = 64
_TAG_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of each
_GAP = rb"(?:\s|#[^\r\n]{0,200}[\r\n]){1,8}"
# Other depths are decoded in Python.
_BINARY_PPM = re.compile(rb"P[56]%b(?P<width>\d{1,9})%b(?P<height>\d{1,9})%b255\s" % ((_GAP,) * 3))
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
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data)
    if (found := _BINARY_PPM.match(data)) is not None:
        return int(found["width"]), int(found["height"])
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


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """Return the size of a TIFF whose first directory is small, upright, and lists no huge tiles."""
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", data, 4)[0]
    count = struct.unpack_from(order + "H", data, start)[0]
    if count > _MAX_TAGS:
        return None
    around, values = 0, dict[int, int]()
    for number in range(count):
        tag, kind, pieces, value = struct.unpack_from(order + "HHII", data, start + 2 + 12 * number)
        around += _TAG_TYPES.get(kind, 8) * pieces
        if pieces == 1 and kind in (3, 4):
            values[tag] = value if kind == 4 else value >> 16 if order == ">" else value & 0xFFFF
    width, height = values.get(256, 0), values.get(257, 0)
    is_upright = values.get(274, 1) == 1  # turning it makes Pillow read all tags, of other directories too
    has_usual_pieces = max(values.get(322, 0), values.get(323, 0)) <= 4096 and values.get(277, 1) <= 4
    return (width, height) if around <= _MAX_HEADER_BYTES and is_upright and has_usual_pieces else None

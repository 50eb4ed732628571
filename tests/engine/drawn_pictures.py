"""Odd pictures for tests, drawn in memory.

Most show `scene()`: 40 x 30 pixels, red in the top left quarter, green in the top right, blue in the bottom left, white
in the bottom right, so that every wrong turn and every swapped channel shows.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image

SIZE = (40, 30)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
Colour = tuple[int, int, int]
# How a picture with the EXIF orientation n is stored, so that turning it by n gives the scene.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def scene() -> Image.Image:
    image = Image.new("RGB", SIZE, WHITE)
    half = (SIZE[0] // 2, SIZE[1] // 2)
    for corner, colour in (((0, 0), RED), ((half[0], 0), GREEN), ((0, half[1]), BLUE)):
        image.paste(colour, (*corner, corner[0] + half[0], corner[1] + half[1]))
    return image


def quarters(image: Image.Image) -> list[Colour]:
    """The colours in the middle of the quarters: top left, top right, bottom left, bottom right."""
    width, height = image.size
    points = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    return [colour for point in points if isinstance(colour := image.getpixel(point), tuple) and len(colour) == 3]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(orientation: int, kind: str = "JPEG") -> bytes:
    """The scene as a camera stores it that writes an EXIF orientation from 1 to 8."""
    image = scene()
    if orientation in _STORED:
        image = image.transpose(_STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif)


def frames(kind: str, count: int) -> bytes:
    """The scene, then plain frames or pages."""
    rest = [Image.new("RGB", SIZE, (40 * index, 0, 90)) for index in range(1, count)]
    return encoded(scene(), kind, save_all=True, append_images=rest)


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG from its parts, for what Pillow does not write; `rows` are unfiltered, each after a zero byte."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


def png16(rgb: bool) -> bytes:
    """Two pixels of 16 bits a channel, 0x1234 and 0xABCD, grey or RGB."""
    values = [0x1234] * (3 if rgb else 1) + [0xABCD] * (3 if rgb else 1)
    return png(2, 1, 16, 2 if rgb else 0, b"\0" + struct.pack(f">{len(values)}H", *values))


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few hundred bytes whose header promises `width` x `height` pixels."""
    return png(width, height, 8, 0, b"\0" * 100)

"""What is called ordinary has the size that Pillow finds; what could take long or much memory is not."""

from __future__ import annotations

import io
import random
import struct

import pytest
from PIL import Image

from dsvl_cli.engine.pictures.headers import MAX_PIXELS, ordinary_size
from dsvl_cli.engine.pictures.images import picture_from_bytes
from tests.batch.malformed import bombs, flip, odd, sound, tiff_strips
from tests.engine.drawn_pictures import bomb, encoded, oriented, png

ORDINARY = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000"])
def test_the_size_of_an_ordinary_picture_is_that_of_its_pixels(kind: str) -> None:
    for n in range(6):
        data = sound(kind, random.Random(n))
        is_ordinary = kind in ORDINARY and not data.startswith(b"P4")
        assert ordinary_size(data) == (Image.open(io.BytesIO(data)).size if is_ordinary else None)


def test_a_turned_picture_has_the_size_of_its_file() -> None:
    width, height = ordinary_size(oriented(6)) or (0, 0)
    picture = picture_from_bytes(oriented(6), "x")
    assert (width, height) == (picture.height, picture.width)


def test_whatever_odd_picture_is_called_ordinary_has_the_size_that_pillow_finds() -> None:
    for name, data in odd():
        size = ordinary_size(data)
        assert size is None or size == Image.open(io.BytesIO(data)).size, name


@pytest.mark.fault("bombs", cases=25)
def test_bombs_are_not_ordinary_unless_small(capsys: pytest.CaptureFixture[str]) -> None:
    for _, data in bombs():
        size = ordinary_size(data)
        assert size is None or size[0] * size[1] <= MAX_PIXELS


@pytest.mark.fault("malformed pictures", cases=500)
def test_no_damage_makes_it_raise() -> None:
    for n in range(500):
        rng = random.Random(n)
        data = flip(sound(rng.choice(ORDINARY), rng), rng)
        ordinary_size(data[: rng.randrange(len(data))] if n % 2 else data)


def riff(*parts: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(part)) + part for kind, part in parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


@pytest.mark.fault("bombs")
@pytest.mark.parametrize(
    "data",
    [
        bomb(MAX_PIXELS, 2),
        png(1, 1, 8, 0, b"\0\0", *[(b"tEXt", b"a\0b")] * 100_000),
        png(1, 1, 8, 0, b"\0\0", (b"eXIf", bytes(3 * 2**20))),
        b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000 + encoded(Image.new("RGB", (9, 9)), "JPEG")[2:],
        b"\xff\xd8" + (b"\xff\xe1\xff\xff" + bytes(65533)) * 40 + encoded(Image.new("RGB", (9, 9)), "JPEG")[2:],
        riff((b"VP8X", bytes(10)), (b"EXIF", bytes(3 * 2**20))),
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + bytes(2**21),
        b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 9, 9, 1, 8, 1) + bytes(99),
        b"P3 1 1 255 1 1 1",
        b"P6 9 9 65535 " + bytes(9 * 9 * 6),
        b"P6 #" + b"x" * 100_000 + b"\n9 9 255 " + bytes(9 * 9 * 3),
        b"P6 " + b"#\n" * 100_000 + b"9 9 255 " + bytes(9 * 9 * 3),
        encoded(Image.new("RGB", (9, 9)), "TIFF", tiffinfo={274: 6}),
        encoded(Image.new("RGB", (9, 9)), "TIFF", tiffinfo={700: bytes(3 * 2**20)}),
        tiff_strips(2 * 2**20),
        tiff_strips(2 * 2**20, order=">"),
        b"",
        b"\xff\xd8\xff",
    ],
)
def test_what_could_take_long_is_not_ordinary(data: bytes) -> None:
    assert ordinary_size(data) is None

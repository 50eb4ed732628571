from __future__ import annotations

import pytest

from dsvl_cli.engine.pictures.signatures import is_heic, not_a_picture

AVIF = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1heic"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"%PDF-1.7\n%\xe2", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"8BPS\0\1" + b"\0" * 60, "Photoshop"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<!DOCTYPE html><html><svg></svg></html>", "web page"),
        (b"dear diary\nnothing today\n", "text"),
        (("é" * 5000).encode(), "text"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
        (b"\0\1\2\3" * 50, "not a picture"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"P", "text"),
        (b"BMW makes cars", "text"),
        (b"RIFF\xff\0\0\0WEBPVP8 ", "damaged"),
        (b"RIFF\xff\0\0\0WAVEfmt ", "not a picture"),
        (AVIF, "damaged"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, word: str) -> None:
    assert word in not_a_picture(data, "odd.png").message


def test_heic_is_known_by_its_brands() -> None:
    assert is_heic(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic")
    assert not is_heic(AVIF)
    assert not is_heic(b"\0\0\0\x18ftypisom\0\0\0\0mp42isom")
    assert not is_heic(b"\0\0\0\x10ftypmif1\0\0\0\0heic")  # past the end of the box
    assert not is_heic(b"")

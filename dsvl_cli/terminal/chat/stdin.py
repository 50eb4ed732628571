"""Tells a stdin that has messages from one that has something else."""

from __future__ import annotations

from typing import BinaryIO, TextIO

from dsvl_cli.errors import UsageError

_SIZE = 1024
# Only what no text begins with, unlike the start of a BMP ("BM") or a PPM ("P5 ").
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP", b"\0\0\x01\0")
_TEXT_WITH_NULLS = (b"\xff\xfe", b"\xfe\xff")  # the marks of UTF-16


def refuse_binary(stream: TextIO) -> None:
    """Check the first bytes of a stream, without taking them, as soon as there are any.

    Raises:
        UsageError: they are of a picture, or not of a text.
    """
    buffer: BinaryIO | None = getattr(stream, "buffer", None)
    if buffer is None:
        return
    data = _peek(buffer)
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    is_iso = data[:2] == b"\0\0" and data[4:8] == b"ftyp"  # HEIC, AVIF
    if data.startswith(_PICTURES) or is_webp or is_iso:
        raise UsageError(
            "stdin is a picture, but a chat reads its messages from it",
            "use `dsvl chat photo.jpg`, or `dsvl describe - < photo.jpg`",
        )
    if b"\0" in data and not data.startswith(_TEXT_WITH_NULLS):
        raise UsageError("stdin is not text, but a chat reads its messages from it", "give one message per line")


def _peek(buffer: BinaryIO) -> bytes:
    peek = getattr(buffer, "peek", None)
    if peek is not None:
        return bytes(peek(_SIZE)[:_SIZE])
    place = buffer.tell()
    data = buffer.read(_SIZE)
    buffer.seek(place)
    return data

"""Detects file types by their first bytes, for error messages about files that are not readable pictures."""

from __future__ import annotations

import codecs

from dsvl_cli.errors import ImageError

SAVE_AS_PNG = "save it as PNG or JPEG first"
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_FOREIGN = (
    (b"%PDF-", "a PDF", "render the page to a PNG first"),
    (b"%!PS", "PostScript", "render it to a PNG first"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file", "render it to a PNG first"),
    (b"8BPS", "a Photoshop file", SAVE_AS_PNG),
    (b"\xff\x0a", "a JPEG XL file", SAVE_AS_PNG),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file", SAVE_AS_PNG),
    (b"PK\x03\x04", "a ZIP archive or an office document", "unpack it first"),
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"\x1aE\xdf\xa3", "a video", "save a frame of it as PNG first"),
)
_KNOWN_STARTS = (
    b"\xff\xd8",
    b"\x89PNG",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\0\0\x01\0",
    b"\0\0\0\x0cjP",
    b"DDS ",
    b"icns",
)
_PPM_KINDS = frozenset(bytes([kind]) for kind in b"1234567Ffy")


def is_picture_start(data: bytes) -> bool:
    """Whether a file that begins so is a picture, by its first bytes alone."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    is_ppm = data[:1] == b"P" and data[1:2] in _PPM_KINDS and data[2:3].isspace()
    return data.startswith((*_KNOWN_STARTS, b"\xff\x4f\xff\x51")) or is_webp or is_ppm or bool(_brands(data))


def is_heic(data: bytes) -> bool:
    """Whether it is an HEIC picture, as phones write them."""
    brands = _brands(data)
    return bool(brands & _HEIC_BRANDS) and not brands & _AVIF_BRANDS


def is_cut_icon(data: bytes) -> bool:
    """Whether it is a Mac's icon whose end is missing: smaller pictures at its beginning would be whole."""
    return data.startswith(b"icns") and len(data) < int.from_bytes(data[4:8], "big")


def is_tga(data: bytes, name: str) -> bool:
    """Whether it is a Targa picture: by its last bytes, which only newer ones have, or else by its name."""
    return data[-18:-2] == b"TRUEVISION-XFILE" or name.lower().endswith((".tga", ".icb", ".vda", ".vst"))


def damaged(name: str) -> ImageError:
    """Return the error for a damaged file of a known type."""
    return ImageError(f"{name}: damaged or truncated", "copy or download it again")


def not_a_picture(data: bytes, name: str) -> ImageError:
    """Return the error for a file that no decoder accepts, naming its likely type."""
    for start, kind, hint in _FOREIGN:
        if data.startswith(start):
            return ImageError(f"{name}: {kind}, not a supported picture", hint)
    if brands := _brands(data):
        if brands & (_HEIC_BRANDS | _AVIF_BRANDS):
            return damaged(name)
        return ImageError(f"{name}: a video or an unknown type of picture", "save it, or a frame of it, as PNG first")
    head = data[:4096].lstrip(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return ImageError(f"{name}: a web page, not a picture")
    if head.startswith(b"<") and b"<svg" in head:
        return ImageError(f"{name}: an SVG drawing", "render it to a PNG first")
    if _is_text(head):
        return ImageError(f"{name}: text, not a picture")
    if data.startswith(_KNOWN_STARTS) or (data[:4] == b"RIFF" and b"WEBP".startswith(data[8:12])):
        return damaged(name)
    return ImageError(f"{name}: not a picture in a known format", SAVE_AS_PNG)


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of an ISO base media file (HEIC, AVIF, MP4); empty for any other file."""
    if data[4:8] != b"ftyp":
        return set()
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return {box[start : start + 4] for start in range(0, len(box), 4)}


def _is_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # it may end in the middle of a character
    except UnicodeDecodeError:
        return False
    return b"\0" not in head

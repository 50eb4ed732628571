"""Pictures to be afraid of: malformed ones, bombs, odd but sound ones, and names. All of them follow from a seed."""

from __future__ import annotations

import gzip
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tests.engine.drawn_pictures import bomb, encoded, frames, oriented, png, png16, scene

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000")
SEED = 20_240_611
_SIZE = (120, 90)
# What each format is written with, to reach more than one path of its reader.
_OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "JPEG": ({}, {"progressive": True}, {"quality": 20, "subsampling": 2}, {"restart_marker_blocks": 2}),
    "PNG": ({}, {"compress_level": 0}, {"save_all": True}),
    "WEBP": ({}, {"lossless": True}, {"save_all": True}),
    "GIF": ({}, {"save_all": True}),
    "TIFF": tuple({"compression": kind} for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
    "ICO": ({"sizes": [(48, 48), (64, 64)]}, {"sizes": [(32, 32)], "bitmap_format": "bmp"}),
    "JPEG2000": ({}, {"no_jp2": True}, {"irreversible": True, "tile_size": (32, 32)}),
}  # fmt: skip
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"P6 ", b"\0\0\1\0")
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def sound(kind: str, rng: random.Random) -> bytes:
    """A picture of a format as it should be."""
    noise = Image.frombytes("RGB", _SIZE, rng.randbytes(3 * _SIZE[0] * _SIZE[1]))
    image = noise if rng.random() < 0.3 else Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = rng.randrange(_SIZE[0]), rng.randrange(_SIZE[1])
        draw.ellipse((x - 20, y - 15, x + 20, y + 15), fill=tuple(rng.randrange(256) for _ in range(3)))
    if kind in ("PNG", "GIF", "BMP", "TIFF", "PPM") and rng.random() < 0.3:
        image = image.convert(rng.choice(["L", "1"] if kind == "PPM" else ["L", "1", "P"]))
    options = dict(rng.choice(_OPTIONS.get(kind, ({},))))
    if options.get("compression") == "jpeg":
        image = image.convert("RGB")
    if options.get("save_all"):
        options["append_images"] = [image.rotate(90), image.rotate(180)]
    return encoded(image, kind, **options)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Its beginning."""
    return data[: rng.choice([rng.randrange(min(len(data), 64)), rng.randrange(len(data))])]


def flip(data: bytes, rng: random.Random) -> bytes:
    """Some bits are others, anywhere or within the header."""
    flipped = bytearray(data)
    end = rng.choice([len(data), min(len(data), 100)])
    for _ in range(rng.choice([1, 5, 50])):
        flipped[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def set_extreme(data: bytes, rng: random.Random) -> bytes:
    """A number in the header is as small or as large as it can be."""
    size = rng.choice([1, 2, 4])
    number = rng.choice([extreme for extreme in _EXTREMES if extreme < 256**size])
    place = rng.randrange(max(1, min(len(data), 200) - size))
    return data[:place] + number.to_bytes(size, rng.choice(["big", "little"])) + data[place + size :]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A stretch is noise, zeros or ones."""
    place, size = rng.randrange(len(data)), rng.randrange(1, 300)
    filling = rng.choice([rng.randbytes(size), bytes(size), b"\xff" * size])
    return data[:place] + filling + data[place + size :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A stretch comes twice, or many times, or not at all."""
    start = rng.randrange(len(data))
    stretch = data[start : start + rng.randrange(1, 2000)]
    return data[:start] + stretch * rng.choice([0, 2, 40]) + data[start + len(stretch) :]


def splice(data: bytes, rng: random.Random) -> bytes:
    """The beginning is that of another picture, of any format."""
    other = sound(rng.choice(FORMATS), rng)
    return other[: rng.randrange(1, len(other))] + data[rng.randrange(len(data)) :]


def rename(data: bytes, rng: random.Random) -> bytes:
    """It begins with the signature of another format."""
    signature = rng.choice(_SIGNATURES)
    return signature + data[rng.choice([0, len(signature)]) :]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut, flip, set_extreme, overwrite, repeat, splice, rename,
)  # fmt: skip


def malformed(count: int = 1000, seed: int = SEED) -> Iterator[tuple[str, bytes]]:
    """So many malformed pictures, named by their number, format and damage; the formats take turns, and the damages."""
    for n in range(count):
        rng = random.Random(f"{seed}/{n}")
        kind, damage = FORMATS[n % len(FORMATS)], DAMAGES[n // len(FORMATS) % len(DAMAGES)]
        yield f"{n:04d}-{kind.lower()}-{damage.__name__}", damage(sound(kind, rng), rng)


def bombs() -> Iterator[tuple[str, bytes]]:
    """25 small files that claim to be, or unpack to, something huge."""
    deep = zlib.compress(bytes(2**25), 9)
    row = b"\0" * 1001
    yield "png-header", bomb()
    yield "png-header-largest", bomb(2**31 - 1, 2**31 - 1)
    yield "png-wide", bomb(2**31 - 1, 1)
    yield "png-below-the-limit-without-data", bomb(13_000, 13_000)
    yield "png-data-beyond-its-rows", png(1000, 10, 8, 0, row * 10 + bytes(2**25))
    yield "png-text", png(1, 1, 8, 0, b"\0\0", *[(b"zTXt", b"a\0\0" + deep)] * 8)
    yield "png-international-text", png(1, 1, 8, 0, b"\0\0", *[(b"iTXt", b"a\0\1\0\0\0" + deep)] * 8)
    yield "png-profile", png(1, 1, 8, 0, b"\0\0", (b"iCCP", b"a\0\0" + deep))
    yield "png-many-chunks", png(1, 1, 8, 0, b"\0\0", *[(b"tEXt", b"a\0b")] * 100_000)
    yield "apng-many-frames", png(1, 1, 8, 0, b"\0\0", (b"acTL", struct.pack(">II", 2**31 - 1, 0)))
    yield "gif-header", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x08"
    yield "gif-frame-larger-than-its-screen", gif_frames(1, (60_000, 60_000))
    yield "gif-many-frames", gif_frames(200_000, (1, 1))
    yield "jpeg-header", jpeg_header(65_500, 65_500)
    yield "jpeg-many-scans", jpeg_scans(6000, 60)
    yield "webp-header", riff(b"VP8X", b"\0\0\0\0" + (2**24 - 1).to_bytes(3, "little") * 2)
    yield "webp-lossless-header", riff(b"VP8L", b"\x2f" + (16_383 | 16_383 << 14).to_bytes(4, "little") + bytes(20))
    yield "bmp-header", bmp_header(2**31 - 1, 2**31 - 1, 0)
    yield "bmp-run-length", bmp_header(40_000, 40_000, 1) + b"\xff\0" * 50_000
    yield "tiff-header", tiff(100_000, 100_000)
    yield "tiff-many-pages", tiff_pages(100_000)
    yield "ppm-header", b"P6 99999 99999 255\n" + bytes(300)
    yield "ppm-endless-header", b"P6 #" + b"x" * 2_000_000
    yield "ico-of-a-png-bomb", ico(bomb())
    yield "jpeg2000-header", jpeg2000(2**31, 2**31)


def riff(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def gif_frames(count: int, size: tuple[int, int]) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + (b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\2\2\x44\1\0") * count + b";"


def jpeg_header(width: int, height: int) -> bytes:
    """A sound picture whose frame header says another size."""
    data = encoded(scene(), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def jpeg_scans(side: int, count: int) -> bytes:
    """A progressive picture of one colour whose last scan comes many times."""
    data = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def bmp_header(width: int, height: int, compression: int) -> bytes:
    depth = 8 if compression else 24
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, 0, 0, 0, 256 if compression else 0, 0)
    palette = bytes(1024) if compression else b""
    return b"BM" + struct.pack("<IHHI", 2**31, 0, 0, 14 + len(info) + len(palette)) + info + palette


def tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 5), (262, 3, 1), (273, 4, 8), (279, 4, 2**31)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


def tiff_strips(count: int, kind: int = 1, order: str = "<") -> bytes:
    """A TIFF that lists so many strips, as numbers of one byte (kind 1), two (3) or four (4)."""
    tags = [(256, 4, 1, 9), (257, 4, 1, 9), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, kind, count, 200)]
    tags += [(278, 4, 1, 1), (279, kind, count, 200)]
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return (head + entries + bytes(4)).ljust(200, b"\0") + bytes(count * {1: 1, 3: 2, 4: 4}[kind])


def tiff_pages(count: int, *, ring: bool = False) -> bytes:
    """Pages of one pixel, one after the other, or the last pointing at the first again."""
    tags = [(256, 4, 1), (257, 4, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 4), (279, 4, 1)]
    entries = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", t, kind, 1, value) for t, kind, value in tags
    )
    size = len(entries) + 4
    follow = [8 + size * (n + 1) for n in range(count - 1)] + [8 if ring else 0]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(entries + struct.pack("<I", place) for place in follow)


def ico(data: bytes) -> bytes:
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(data), 22) + data


def jpeg2000(width: int, height: int) -> bytes:
    size = struct.pack(">HHIIIIIIIIH", 41, 0, width, height, 0, 0, 1, 1, 0, 0, 1) + b"\7\1\1"
    return b"\xff\x4f\xff\x51" + size + bytes(100)


def large() -> Iterator[tuple[str, bytes]]:
    """Small files of sound pictures just below the limit of pixels, which is where the most memory goes."""
    side = 13_000
    for name, depth, colour_type, channels in (("one-bit", 1, 0, 1), ("grey", 8, 0, 1), ("rgb", 8, 2, 3)):
        row = bytes(1 + (side * depth * channels + 7) // 8)
        yield name, png(side, side, depth, colour_type, row * side)


def odd() -> Iterator[tuple[str, bytes]]:
    """40 pictures that are sound, though seldom seen."""
    rgba = scene().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    palette = scene().quantize(4)
    yield "one-pixel.png", encoded(Image.new("RGB", (1, 1)), "PNG")
    yield "one-pixel.jpg", encoded(Image.new("RGB", (1, 1)), "JPEG")
    yield "one-pixel.gif", encoded(Image.new("P", (1, 1)), "GIF")
    yield "one-bit.png", encoded(scene().convert("1"), "PNG")
    yield "one-bit.tif", encoded(scene().convert("1"), "TIFF", compression="group4")
    yield "one-bit.pbm", encoded(scene().convert("1"), "PPM")
    yield "grey.jpg", encoded(scene().convert("L"), "JPEG")
    yield "grey-alpha.png", encoded(rgba.convert("LA"), "PNG")
    yield "sixteen-bits-grey.png", png16(rgb=False)
    yield "sixteen-bits-rgb.png", png16(rgb=True)
    yield "sixteen-bits.pgm", b"P5 2 1 65535\n\x12\x34\xab\xcd"
    yield "two-bits.png", png(4, 1, 2, 0, b"\0\x1b")
    yield "floats.tif", encoded(Image.linear_gradient("L").convert("F"), "TIFF")
    yield "integers.tif", encoded(Image.linear_gradient("L").convert("I"), "TIFF")
    yield "cmyk.jpg", encoded(scene().convert("CMYK"), "JPEG")
    yield "cmyk.tif", encoded(scene().convert("CMYK"), "TIFF")
    yield "ycbcr.jpg", encoded(scene().convert("YCbCr"), "JPEG")
    yield "palette-transparent.png", encoded(palette, "PNG", transparency=0)
    yield "palette-transparencies.png", encoded(palette, "PNG", transparency=bytes([0, 90, 180, 255]))
    yield "palette-transparent.gif", encoded(palette, "GIF", transparency=1)
    yield "colour-key.png", encoded(scene(), "PNG", transparency=(255, 0, 0))
    yield "alpha.webp", encoded(rgba, "WEBP", lossless=True)
    yield "alpha.avif", encoded(rgba, "AVIF")
    yield "all-transparent.png", encoded(Image.new("RGBA", (9, 9)), "PNG")
    yield "animated.gif", frames("GIF", 5)
    yield "animated.webp", frames("WEBP", 5)
    yield "animated.png", frames("PNG", 5)
    yield "pages.tif", frames("TIFF", 5)
    yield "camera.mpo", frames("MPO", 2)
    yield "turned-6.jpg", oriented(6)
    yield "mirrored-5.webp", oriented(5, "WEBP")
    yield "wide.png", encoded(Image.new("RGB", (20_000, 1)), "PNG")
    yield "tall.jpg", encoded(Image.new("RGB", (1, 20_000)), "JPEG")
    yield "progressive.jpg", encoded(scene(), "JPEG", progressive=True, optimize=True)
    yield "interlaced.png", interlaced()
    yield "interlaced.gif", encoded(scene(), "GIF", interlace=1)
    yield "icon.ico", encoded(scene(), "ICO", sizes=[(16, 16), (32, 32)])
    yield "codestream.j2k", encoded(scene(), "JPEG2000", no_jp2=True)
    yield "upside-down.bmp", bmp_from_the_top()
    yield "rubbish-behind-its-end.jpg", encoded(scene(), "JPEG") + gzip.compress(b"rubbish" * 999, mtime=0)


def interlaced() -> bytes:
    """A grey PNG of 8 x 8 pixels in Adam7's seven passes, which Pillow does not write."""
    passes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))  # width and height of each
    rows = b"".join((b"\0" + bytes([30 * n] * width)) * height for n, (width, height) in enumerate(passes))
    data = bytearray(png(8, 8, 8, 0, rows))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def bmp_from_the_top() -> bytes:
    """A BMP whose height is negative: the first row comes first."""
    data = bytearray(encoded(scene(), "BMP"))
    data[22:26] = struct.pack("<i", -scene().height)
    return bytes(data)


NAMES = (
    b"two\nlines.png", b"\nleading.png", b"carriage\rreturn.png", b"tab\tbetween.png", b"\x1b[31mred.png",
    b"\x01\x02\x7f.png", b"c1-\xc2\x9b31m.png", b"latin-\xe9.png", b"\xff\xfe.png", b"half-\xe2\x82.png",
    b"surrogate-\xed\xa0\x80.png", b"n" * 251 + b".png", b"\xc3\xa9" * 125 + b".png", b" leading space.png",
    b"trailing space .png", b"-dash.png", b"--prompt.png", b"=1+1.png", b"@SUM(A1).png", b"+1.png", b'"quotes".png',
    b"'single'.png", b"a,b;c.png", b"$(touch x).png", b"`touch x`.png", b"a;b|c&d.png", b"back\\slash.png", b"*.png",
    b"[abc]?.png", b"{a,b}.png", b"100%.png", b"%41.png", b"#hash.png", b"~.png", b"a::b.png", b"<b>bold<b>.png",
    b"rtl-\xe2\x80\xaegnp.png", b"zero\xe2\x80\x8bwidth.png", b"line\xe2\x80\xa8separator.png",
    b"e\xcc\x81.png", b"\xf0\x9f\x98\x80.png", b"UPPER.PNG", b"two.dots..png", b"CON.png", b"null.png", b"[red].png",
)  # fmt: skip


def write_all(folder: Path, count: int = 1000) -> int:
    """Write all of them, and a sound picture under each of the names; returns how many files there are.

    Their extensions are of formats that they are not, or of others, as it comes.
    """
    written = 0
    for n, (name, data) in enumerate((*malformed(count), *bombs(), *odd())):
        suffix = "" if "." in name else f".{('jpg', 'png', 'webp', 'gif', 'tiff')[n % 5]}"
        (folder / f"{name}{suffix}").write_bytes(data)
        written += 1
    for raw in NAMES:
        with open(os.path.join(os.fsencode(folder), raw), "wb") as file:
            file.write(encoded(scene(), "PNG"))
        written += 1
    return written

"""Thousands of mutations of pictures of every format, all of which follow from a seed.

Other than `malformed.py`, which draws a new picture for each case, this mutates a few of each format, often several
times over: so ten thousand cost less than half a minute. Of what it found once, the seeds are kept in `FOUND`.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from functools import cache

from tests.batch.malformed import (
    FORMATS,
    SEED,
    cut,
    flip,
    odd,
    overwrite,
    rename,
    repeat,
    set_extreme,
    sound,
    tiff_strips,
)
from tests.engine.drawn_pictures import frames, png

_OF_EACH = 6
# Cases that once raised something else, took long or took much memory: (seed, number).
FOUND: tuple[tuple[int, int], ...] = ((1, 1917), (2, 16603))
# Files that were written by hand to hurt, or what is left of them once they are made small.
KEPT = {
    "plain-comments-in-its-data.ppm": b"P3 2 1 255\n" + b"#\n" * 3_000 + b"1 2 3 4 5 6\n",
    "plain-comments-between-numbers.ppm": b"P3 2 1 255\n" + b"#\n1 " * 3_000,
    "plain-one-long-comment.ppm": b"P3 2 1 255\n#" + b"x" * 200_000 + b"\n1 2 3 4 5 6\n",
    "plain-header-of-comments.ppm": b"P3 #" + b"x" * 200_000 + b"\n2 1 255\n1 2 3 4 5 6\n",
    "strips-of-bytes.tif": tiff_strips(200_000),
    "more-strips-of-bytes.tif": tiff_strips(300_000),
    "strips-of-bytes-in-the-other-order.tif": tiff_strips(300_000, order=">"),
    "segments-without-end.jpg": b"\xff\xd8" + b"\xff\xfe\0\2" * 50_000,
    "parts-without-end.png": png(1, 1, 8, 0, b"\0\0", *[(b"tEXt", b"a\0b")] * 20_000),
    "nothing-but-a-signature.webp": b"RIFF\0\0\0\0WEBP",
}


@cache
def _pool() -> dict[str, tuple[bytes, ...]]:
    """Some sound pictures of each format."""
    rng = random.Random(SEED)
    pool = {kind: [sound(kind, random.Random(f"{SEED}/{kind}/{n}")) for n in range(_OF_EACH)] for kind in FORMATS}
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        pool[kind].append(frames(kind, 3))
    for name, data in odd():
        kind = {"jpg": "JPEG", "tif": "TIFF", "pbm": "PPM", "pgm": "PPM", "j2k": "JPEG2000", "mpo": "JPEG"}.get(
            name.rpartition(".")[2], name.rpartition(".")[2].upper()
        )
        if len(data) < 50_000:
            pool[kind].append(data)
    for kind in ("PPM", "PPM", "PPM", "PPM"):  # those that are text
        pool[kind].append(_plain(rng))
    return {kind: tuple(pictures) for kind, pictures in pool.items()}


def _plain(rng: random.Random) -> bytes:
    kind, most = rng.choice([(1, 1), (2, 255), (3, 255), (3, 65535)])
    width, height = rng.randrange(1, 30), rng.randrange(1, 30)
    numbers = " ".join(str(rng.randrange(most + 1)) for _ in range(width * height * (3 if kind == 3 else 1)))
    head = f"P{kind} # a comment\n{width} {height}\n" + (f"{most}\n" if kind > 1 else "")
    return f"{head}# another\n{numbers}\n".encode()


def insert(data: bytes, rng: random.Random) -> bytes:
    """Something small comes in between."""
    place = rng.randrange(min(len(data), rng.choice([40, 400, len(data)])) + 1)
    small = rng.choice([b"\0", b"\xff", b"\n#", b" ", b"-", b"1e9", rng.randbytes(4), struct.pack("<I", 2**31)])
    return data[:place] + small * rng.choice([1, 1, 7, 500]) + data[place:]


def count_up(data: bytes, rng: random.Random) -> bytes:
    """A small number, such as a length or a count, is a little or much larger."""
    places = [place for place in range(min(len(data), 2000)) if data[place] < 32]
    if not places:
        return data
    changed = bytearray(data)
    for place in rng.sample(places, min(len(places), rng.choice([1, 2, 5]))):
        changed[place] = (changed[place] + rng.choice([1, 2, 16, 127, 255])) % 256
    return bytes(changed)


def drop(data: bytes, rng: random.Random) -> bytes:
    """A few bytes are missing."""
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.choice([1, 2, 4, 13]) :]


def splice(data: bytes, rng: random.Random) -> bytes:
    """The beginning is that of another picture, of this format or of another."""
    other = rng.choice(_pool()[rng.choice(FORMATS)])
    return other[: rng.randrange(1, len(other))] + data[rng.randrange(len(data)) :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip, set_extreme, count_up, insert, drop, overwrite, repeat, splice, cut, rename,
)  # fmt: skip


def mutation(number: int, seed: int = SEED) -> tuple[str, bytes]:
    """The case of that number, and its name."""
    rng = random.Random(f"fuzz/{seed}/{number}")
    kind = FORMATS[number % len(FORMATS)]
    data = rng.choice(_pool()[kind])
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
        if data:
            change = rng.choice(MUTATIONS)
            data = change(data, rng)
            done.append(change.__name__)
    return f"{seed}/{number}-{kind.lower()}-{'-'.join(done)}", data


def mutations(count: int, seed: int = SEED) -> Iterator[tuple[str, bytes]]:
    """So many cases; the formats take turns."""
    return (mutation(number, seed) for number in range(count))

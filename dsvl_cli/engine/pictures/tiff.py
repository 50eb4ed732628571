"""Looks at the directories of a TIFF without reading them, where Pillow would take long or much memory."""

from __future__ import annotations

import struct

MAX_PAGES = 10_000
_MAX_PIECES = 2**18  # strips or tiles; more than any picture of 175 megapixels needs
_PIECE_TAGS = frozenset({273, 279, 324, 325})  # offsets and sizes of strips and tiles


def count_pages(data: bytes) -> int:
    """Count the directories of a TIFF, at most `MAX_PAGES`; at least 1, even if the file is damaged.

    Pillow's `n_frames` reads all tags of all pages and compares each page with all others: two minutes for a file of
    9 MB. The format: TIFF 6.0, section 2; BigTIFF has 64-bit offsets and counts.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] == struct.pack(f"{order}H", 43)
    count, offset = struct.Struct(order + ("Q" if big else "H")), struct.Struct(order + ("Q" if big else "I"))
    entry_size, link = (20, 8) if big else (12, 4)
    seen: set[int] = set()
    try:
        while (start := offset.unpack_from(data, link)[0]) and start not in seen and len(seen) < MAX_PAGES:
            link = start + count.size + entry_size * count.unpack_from(data, start)[0]
            seen.add(start)
    except (struct.error, OverflowError, IndexError):  # an offset beyond the end of the file
        pass
    return max(1, len(seen))


def has_absurd_offsets(data: bytes) -> bool:
    """Whether the first directory of a TIFF lists so many strips or tiles that reading the list would exhaust memory.

    False for any other file. Pillow makes a Python object of each: 4 MiB of bytes become more than a gigabyte.
    """
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return False
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    entry = struct.Struct(order + ("HHQ" if big else "HHI"))
    try:
        start = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
        place = start + (8 if big else 2)
        for number in range(min(count, 2**16)):
            tag, _, pieces = entry.unpack_from(data, place + (20 if big else 12) * number)
            if tag in _PIECE_TAGS and pieces > _MAX_PIECES:
                return True
    except (struct.error, OverflowError):
        pass
    return False

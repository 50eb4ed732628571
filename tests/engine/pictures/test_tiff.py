from __future__ import annotations

import random
import struct

import pytest
from PIL import Image

from dsvl_cli.engine.pictures.images import picture_from_bytes
from dsvl_cli.engine.pictures.tiff import MAX_PAGES, count_pages
from tests.batch.malformed import tiff_pages
from tests.engine.drawn_pictures import encoded, frames, scene


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pages", [1, 2, 7])
def test_pages_are_counted(pages: int, big: bool) -> None:
    rest = [Image.new("RGB", (3, n + 1)) for n in range(pages - 1)]
    assert count_pages(encoded(scene(), "TIFF", save_all=True, append_images=rest, big_tiff=big)) == pages


def test_both_byte_orders() -> None:
    directory = struct.pack(">HHHIII", 1, 256, 4, 1, 1, 26)
    assert count_pages(b"MM\0*" + struct.pack(">I", 8) + directory + struct.pack(">HI", 0, 0)) == 2


def test_a_chain_ends() -> None:
    assert count_pages(tiff_pages(3, ring=True)) == 3
    assert count_pages(tiff_pages(MAX_PAGES + 5)) == MAX_PAGES
    assert picture_from_bytes(tiff_pages(50), "fax").notes == ("only the first of 50 pages is used",)


def test_damage_leaves_the_first_page() -> None:
    data = frames("TIFF", 3)
    chance = random.Random(0)
    for length in (0, 3, 4, 8, 9, *(chance.randrange(len(data)) for _ in range(50))):
        assert 1 <= count_pages(data[:length]) <= 3
    for _ in range(200):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] = chance.randrange(256)
        assert 1 <= count_pages(bytes(damaged)) <= MAX_PAGES

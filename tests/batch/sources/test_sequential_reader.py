from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.batch.sources import sequential_reader
from dsvl_cli.batch.sources.sequential_reader import SequentialReader, Stream
from dsvl_cli.errors import ImageError


class Source:
    """A hundred entries, readable from every tenth on; counts what is opened and passed."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.passed = 0
        self.open = 0

    def reader(self) -> SequentialReader[bytes]:
        return SequentialReader(lambda index: index - index % 10, self.start, len)

    def start(self, index: int) -> Stream[bytes]:
        self.started.append(index)
        self.open += 1
        try:
            for n in range(index, 100):
                self.passed += 1
                yield b"%d" % n
        finally:
            self.open -= 1


@given(st.lists(st.integers(0, 99)))
def test_any_order_gives_each_its_own(indices: list[int]) -> None:
    source = Source()
    reader = source.reader()
    assert [reader.read(index) for index in indices] == [b"%d" % index for index in indices]
    assert source.open <= 1


def test_in_order_everything_is_passed_once() -> None:
    source = Source()
    reader = source.reader()
    for index in range(100):
        reader.read(index)
    assert (source.started, source.passed) == ([0], 100)


def test_far_ahead_nothing_between_is_passed() -> None:
    source = Source()
    reader = source.reader()
    assert (reader.read(3), reader.read(95)) == (b"3", b"95")
    assert (source.started, source.passed) == ([0, 90], 4 + 6)


def test_threads_a_little_out_of_order_share_one_stream() -> None:
    source = Source()
    reader = source.reader()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reader.read, range(100))) == [b"%d" % index for index in range(100)]
    assert source.passed == 100


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential_reader, "_WINDOW_BYTES", 6)
    source = Source()
    reader = source.reader()
    assert reader.read(30) == b"30"
    assert [reader.read(index) for index in (33, 32, 31)] == [b"33", b"32", b"31"]
    assert source.started == [30]
    assert reader.read(30) == b"30"
    assert source.started == [30, 30]


def test_an_error_leaves_the_reader_usable() -> None:
    def start(index: int) -> Stream[bytes]:
        yield from [b"x"] * (5 - index)
        raise ImageError("damaged")

    reader = SequentialReader(lambda index: 0, start, len)
    for _ in range(2):
        with pytest.raises(ImageError, match="damaged"):
            reader.read(7)
        assert reader.read(random.Random(0).randrange(5)) == b"x"


def test_a_stream_that_became_shorter_is_told() -> None:
    reader = Source().reader()
    with pytest.raises(ImageError, match="shorter"):
        reader.read(100)

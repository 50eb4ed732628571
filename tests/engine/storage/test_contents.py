"""Digests cover the whole of a file, and are computed once as long as it is not changed."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest

from dsvl_cli.engine.storage import contents

SIZE = 300_000


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that files are large, and were changed long ago."""
    monkeypatch.setattr(contents, "SMALL", 1000)
    monkeypatch.setattr(contents, "_PIECE", 4096)
    monkeypatch.setattr(contents, "_SETTLED_SECONDS", 0.0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of files that were read."""
    read: list[int] = []
    compute = contents._hash

    def count(handle: int, size: int) -> str:
        read.append(size)
        return compute(handle, size)

    monkeypatch.setattr(contents, "_hash", count)
    return read


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    time.sleep(0.01)
    return path


def test_every_byte_counts(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(20_000)
    seen = {contents.hash_file(write(tmp_path / "whole", data), tmp_path / "records")}
    for position in (0, 4095, 4096, 9_999, 19_999):
        changed = bytearray(data)
        changed[position] ^= 1
        seen.add(contents.hash_file(write(tmp_path / str(position), bytes(changed)), tmp_path / "records"))
    seen.add(contents.hash_file(write(tmp_path / "longer", data + b"\0"), tmp_path / "records"))
    assert len(seen) == 7


def test_a_file_is_read_once(tmp_path: Path, counted: list[int]) -> None:
    path = write(tmp_path / "file", b"x" * SIZE)
    assert contents.hash_file(path, tmp_path / "r") == contents.hash_file(path, tmp_path / "r")
    assert counted == [SIZE]


@pytest.mark.fault("changed weights")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no time of a change")
def test_a_change_is_noticed_though_size_and_time_are_as_before(tmp_path: Path, counted: list[int]) -> None:
    path = write(tmp_path / "file", b"x" * SIZE)
    before, status = contents.hash_file(path, tmp_path / "r"), path.stat()
    with path.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"y")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert contents.hash_file(path, tmp_path / "r") != before
    assert counted == [SIZE, SIZE]


@pytest.mark.fault("changed weights")
def test_a_file_that_was_just_changed_is_read_again(
    tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_SETTLED_SECONDS", 100.0)
    path = write(tmp_path / "file", b"x" * SIZE)
    contents.hash_file(path, tmp_path / "r")
    contents.hash_file(path, tmp_path / "r")
    assert counted == [SIZE, SIZE]


@pytest.mark.fault("damaged cache")
@pytest.mark.parametrize("content", [b"", b"x" * 64, b"-" + b"1" * 63, b"0" * 63, b"\xff" * 64])
def test_a_damaged_record_is_as_none(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "file", b"x" * SIZE)
    before = contents.hash_file(path, tmp_path / "r")
    for record in (tmp_path / "r").iterdir():
        record.write_bytes(content)
    assert contents.hash_file(path, tmp_path / "r") == before


@pytest.mark.fault("another user's file")
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_record_that_others_could_write_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "file", b"x" * SIZE)
    before = contents.hash_file(path, tmp_path / "r")
    for record in (tmp_path / "r").iterdir():
        record.write_text("0" * 64)
        record.chmod(0o666)
    assert contents.hash_file(path, tmp_path / "r") == before


def test_without_a_place_for_records_it_is_computed(tmp_path: Path) -> None:
    path = write(tmp_path / "file", b"x" * SIZE)
    (tmp_path / "no-folder").write_bytes(b"")
    assert contents.hash_file(path, tmp_path / "no-folder" / "r") == contents.hash_file(path, tmp_path / "r")


def test_records_do_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_RECORDS", 3)
    for number in range(8):
        contents.hash_file(write(tmp_path / str(number), bytes([number]) * SIZE), tmp_path / "r")
    assert len(list((tmp_path / "r").iterdir())) <= 4

"""The folders of what can be made again: bounded, whole files only, for their owner alone."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dsvl_cli.engine.storage.cache_folder import BoundedFolder, cache_folder
from dsvl_cli.engine.storage.files import NewFile
from tests.platforms import pretend

TENSORS = {"a": torch.arange(100), "b": torch.ones(3, 5, dtype=torch.bfloat16)}


def names(folder: BoundedFolder) -> list[str]:
    """The names, least recently used first."""
    return [path.stem for path, _ in folder.list_files()]


def age(folder: BoundedFolder, name: str, seconds: int) -> None:
    then = time.time() - seconds
    os.utime(folder.place(name), (then, then))


@pytest.fixture
def folder(tmp_path: Path) -> BoundedFolder:
    return BoundedFolder(tmp_path / "deep" / "kept", 3500)


def test_what_is_written_is_read(folder: BoundedFolder) -> None:
    folder.write("one", TENSORS, {"what": "a test"})
    found = load_file(folder.place("one"))
    assert set(found) == set(TENSORS)
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert folder.list_files() == [(folder.place("one"), folder.place("one").stat().st_size)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_only_the_owner_may_read(folder: BoundedFolder) -> None:
    folder.write("one", TENSORS, {})
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.place("one").stat().st_mode) == 0o600


def test_the_least_recently_used_makes_room(folder: BoundedFolder) -> None:
    for place, name in enumerate(("one", "two", "three")):
        folder.write(name, TENSORS, {})
        age(folder, name, 100 - place)
    age(folder, "one", 1)
    folder.write("four", TENSORS, {})
    assert names(folder) == ["three", "one", "four"]
    assert sum(size for _, size in folder.list_files()) <= folder.largest_bytes


def test_what_is_larger_than_the_folder_may_be_drives_nothing_out(folder: BoundedFolder) -> None:
    folder.write("one", TENSORS, {})
    with pytest.raises(OSError, match="larger than the limit"):
        folder.write("two", {"a": torch.zeros(4000, dtype=torch.uint8)}, {})
    assert names(folder) == ["one"]


def test_a_full_disk_leaves_nothing_half_written(folder: BoundedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("one", TENSORS, {})
    before = folder.place("one").read_bytes()

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    for name in ("one", "two"):
        with pytest.raises(OSError, match="space"):
            folder.write(name, {"a": torch.zeros(7)}, {})
    assert [path.name for path in folder.path.iterdir()] == ["one.safetensors"]
    assert folder.place("one").read_bytes() == before


def test_what_a_killed_process_left_is_removed_in_time(folder: BoundedFolder) -> None:
    folder.write("one", TENSORS, {})
    old, new = NewFile(folder.place("two")), NewFile(folder.place("three"))
    for file in (old, new):
        file.write(b"half")
        file.close()
    os.utime(old.path, (0, 0))
    folder.write("two", TENSORS, {})
    assert not old.path.exists()
    assert new.path.exists()  # another process may be writing it


def test_its_place_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("DSVL_CACHE_DIR")
    assert cache_folder().is_absolute()


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "/h/.cache/dsvl"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/dsvl"),
        ("linux", {"XDG_CACHE_HOME": "x"}, "/h/.cache/dsvl"),
        ("linux", {"XDG_CACHE_HOME": "/x", "DSVL_CACHE_DIR": "/d"}, "/d"),
        ("linux", {"DSVL_CACHE_DIR": "~/d"}, "/h/d"),
        ("darwin", {}, "/h/Library/Caches/dsvl"),
        ("darwin", {"XDG_CACHE_HOME": "x"}, "/h/Library/Caches/dsvl"),
        ("win32", {"LOCALAPPDATA": "/l", "XDG_CACHE_HOME": "/x"}, "/l/dsvl/Cache"),
        ("win32", {}, "/h/AppData/Local/dsvl/Cache"),
    ],
)
def test_it_is_where_the_platform_has_it(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], folder: str
) -> None:
    pretend(monkeypatch, platform, {"DSVL_CACHE_DIR": "", "HOME": "/h", **variables})
    assert cache_folder() == Path(folder)

"""One spelling for each file, and different ones for different files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsvl_cli.batch.path_set import PathSet
from dsvl_cli.batch.sources.identity import canonical


def test_every_spelling_is_the_same(tmp_path: Path) -> None:
    base = os.path.realpath(tmp_path)
    (tmp_path / "photos/sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "t.tar").write_bytes(b"")
    for spelled in ("photos/a.png", f"{base}/photos/a.png", "link/a.png", "photos/sub/../a.png", "./photos//a.png"):
        assert canonical(spelled, base) == os.path.join("photos", "a.png")
    for spelled in ("t.tar::x/../y.png", f"{base}/t.tar::x/../y.png", "photos/../t.tar::x/../y.png"):
        assert canonical(spelled, base) == "t.tar::x/../y.png"
    assert canonical("link/a.png", f"{base}/photos/sub") == os.path.join("link", "a.png")  # there is no such link
    assert canonical("../a.png", f"{base}/photos/sub") == os.path.join(base, "photos", "a.png")


@pytest.mark.parametrize("name", ["https://x.org/a/../b.png", "a\0b.png", "x::y.png", "", "a.png", "a::b::c"])
def test_what_is_no_path_in_a_folder_stays(tmp_path: Path, name: str) -> None:
    assert canonical(name, os.path.realpath(tmp_path)) == name


def test_two_names_of_a_file_are_two_pictures_and_one_file(tmp_path: Path) -> None:
    base = os.path.realpath(tmp_path)
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").symlink_to("a.png")
    os.link(tmp_path / "a.png", tmp_path / "c.png")
    assert [canonical(name, base) for name in ("a.png", "b.png", "c.png")] == ["a.png", "b.png", "c.png"]
    files = PathSet([tmp_path / "a.png"])
    assert all(tmp_path / name in files for name in ("a.png", "b.png", "c.png"))
    assert tmp_path / "d.png" not in files


def test_a_file_that_does_not_exist_is_known_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    files = PathSet([tmp_path / "link/new.csv"])
    assert tmp_path / "photos/new.csv" in files
    assert tmp_path / "photos/../link/new.csv" in files
    assert tmp_path / "new.csv" not in files
    (tmp_path / "photos/new.csv").write_bytes(b"")
    assert tmp_path / "photos/new.csv" in files

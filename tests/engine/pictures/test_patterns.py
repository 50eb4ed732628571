"""Glob patterns: as the standard library's, but links in a circle end."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from dsvl_cli.engine.pictures.images import read_picture
from dsvl_cli.engine.pictures.patterns import match_files
from dsvl_cli.errors import ImageError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a/1.png", "a/b/2.png", "a/b/c/3.jpg", "a/.hidden/4.png", "a/b/.5.png", "d[1]/6.png", "7.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["**", "**/*.png", "a/**", "a/**/*.png", "a/**/b/*.png", "*/**/*.png", "**/b/**", "**/**/*.jpg", "d[[]1]/**",
     "*.png", "./**/*.png", "none/**", "**/none"],
)  # fmt: skip
@pytest.mark.parametrize("start", ["", "here"])
def test_a_pattern_matches_what_it_does_in_the_standard_library(tree: Path, pattern: str, start: str) -> None:
    pattern = os.path.join(glob.escape(str(tree)), pattern) if start else pattern
    expected = {os.path.normpath(path) for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
    assert {os.path.normpath(path) for path in match_files(pattern) if os.path.isfile(path)} == expected


@pytest.mark.fault("links in a circle")
@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("pattern", ["**/*.png", "a/**/1.png", "**/a/**/*.png", "*/**"])
def test_links_in_a_circle_end(tree: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/round", "a/b/round", "a/b/c/round", "d[1]/round"):
        os.symlink(tree, name)
    listed = 0
    scandir = os.scandir

    def count(path: str) -> object:
        nonlocal listed
        listed += 1
        assert listed < 2000
        return scandir(path)

    monkeypatch.setattr(os, "scandir", count)
    assert "1.png" in {os.path.basename(path) for path in match_files(pattern)}


@pytest.mark.fault("many missing names", cases=60)
def test_hints_for_many_missing_names_list_the_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2000):
        (tmp_path / f"photo-{number:05}.jpg").touch()
    listed: list[object] = []
    scandir = os.scandir

    def remember(path: str) -> object:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", remember)
    for number in range(60):
        with pytest.raises(ImageError) as caught:
            read_picture(str(tmp_path / f"photo-{number:05}.jpeg"))
        assert caught.value.hint == f"did you mean {tmp_path / f'photo-{number:05}.jpg'}?"
    assert len(listed) == 1

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.conversation import compose_parts
from dsvl_cli.errors import ImageError
from dsvl_cli.terminal.chat.attachments import find_pictures, split_arguments
from tests.terminal.fake_model import SOURCES, picture_bytes

NAMES = [
    "a.png",
    "my cat.png",
    "it's.png",
    'say "hi".png',
    "ünïcödé.PNG",
    "C:\\pics\\a.png",
    "a b  c.jpg",
    "[1](2).png",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in NAMES:
        (tmp_path / name).write_bytes(picture_bytes())
    return tmp_path


def backslashed(path: str) -> str:
    return "".join(f"\\{c}" if c in " '\"()[]\\" else c for c in path)


WRITINGS: dict[str, Callable[[str], str]] = {
    "quotes": lambda path: "'" + path.replace("'", r"'\''") + "'",
    "double quotes": lambda path: f'"{path}"',
    "backslashes": backslashed,
    "file address": lambda path: f"file://{quote(path)}",
    "at": lambda path: f"@{backslashed(path)}",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("writing", WRITINGS)
def test_a_dropped_path_is_found_however_it_is_written(folder: Path, name: str, writing: str) -> None:
    if writing == "double quotes" and '"' in name:
        pytest.skip("no terminal writes a double quote within double quotes")
    path = str(folder / name)
    found = find_pictures(f"{WRITINGS[writing](path)} What is this?", SOURCES)
    assert [picture.name for picture in found.pictures] == [path]
    assert (found.text, found.marked) == ("What is this?", False)


@pytest.mark.parametrize("line", ["a.png", "@a.png", "./a.png", "~/a.png", "'a.png'", "C:\\pics\\a.png", "my cat.png"])
def test_a_path_alone_leaves_no_text(folder: Path, line: str) -> None:
    found = find_pictures(line, SOURCES)
    assert len(found.pictures) == 1
    assert found.text == ""


def test_several_pictures_keep_their_order(folder: Path) -> None:
    found = find_pictures("'my cat.png' a.png\n~/it\\'s.png\nWhich is which?", SOURCES)
    assert [Path(picture.name).name for picture in found.pictures] == ["my cat.png", "a.png", "it's.png"]
    assert found.text == "Which is which?"


def test_files_on_lines_of_their_own_need_no_quotes(folder: Path) -> None:
    found = find_pictures("my cat.png\na b  c.jpg\nWhat differs?", SOURCES)
    assert [picture.name for picture in found.pictures] == ["my cat.png", "a b  c.jpg"]
    assert found.text == "What differs?"


def test_paths_within_a_sentence_leave_marks(folder: Path) -> None:
    found = find_pictures("What do a.png and 'my cat.png' share?", SOURCES)
    assert (found.text, found.marked) == ("What do a.png: <image> and my cat.png: <image> share?", True)
    first, second = found.pictures
    parts = ("What do a.png: ", first, " and my cat.png: ", second, " share?")
    assert compose_parts(found.text, found.pictures) == parts


def test_a_full_stop_behind_a_path_is_not_its_end(folder: Path) -> None:
    found = find_pictures("Describe a.png.", SOURCES)
    assert found.text == "Describe <image>."
    assert len(found.pictures) == 1


@pytest.mark.parametrize(
    "line",
    [
        "What is it?",
        "is there a PNG here, or a .png?",
        "/etc/passwd",
        "mail me@example.org, or say @ home",
        "and/or 3/4 of photo.png.zip in a.png/b",
        "draw a file.pngx",
        "it's <image>",
        "",
        "   ",
        "a\tb",
        "'quoted' words",
        "x" * 10_000,
    ],
)
def test_other_text_stays_as_it_is(folder: Path, line: str) -> None:
    found = find_pictures(line, SOURCES)
    assert (found.text, found.pictures) == (line, ())


def test_a_picture_without_an_extension_is_found_by_reading_it(folder: Path) -> None:
    (folder / "clip").write_bytes(picture_bytes())
    (folder / "notes").write_text("hello")
    assert len(find_pictures(f"{folder}/clip {folder}/notes", SOURCES).pictures) == 1
    assert find_pictures("clip of the day", SOURCES).pictures == ()


def test_a_picture_that_cannot_be_read_is_told(folder: Path) -> None:
    (folder / "bad.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"bad\.png"):
        find_pictures("bad.png what is it?", SOURCES)


@given(st.text(alphabet="abc/\\'\"@~ \n.png:", max_size=40))
def test_no_line_breaks_it(line: str) -> None:
    try:
        found = find_pictures(line, SOURCES)
    except ImageError:
        assert "@" in line or ".png" in line
        return
    assert found.pictures == ()
    assert found.text == line


def test_arguments_of_commands_are_split_as_they_are_dropped(folder: Path) -> None:
    assert split_arguments("a.png 'my cat.png' my\\ cat.png *.png https://x.org/a\\b") == [
        "a.png",
        "my cat.png",
        "my cat.png",
        "*.png",
        "https://x.org/a\\b",
    ]
    assert split_arguments("C:\\pics\\a.png") == ["C:\\pics\\a.png"]

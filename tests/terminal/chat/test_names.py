"""What counts as the name of a picture in a line, however it is written, and what is said if there is none."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.pictures.missing import find_file
from dsvl_cli.terminal.chat.attachments import find_pictures
from dsvl_cli.terminal.chat.names import find_names
from tests.terminal.fake_model import SOURCES, Desk, picture_bytes

EXTENSIONS = frozenset({".png", ".jpg"})
SCREENSHOT = "Screenshot 2024-05-01 at 9.41.05\u202fAM.png"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pics").mkdir()
    for name in ("number-42.png", "my cat.png", SCREENSHOT, "pics/a b.png", unicodedata.normalize("NFD", "café.png")):
        (tmp_path / name).write_bytes(picture_bytes())
    (tmp_path / "notes.txt").write_text("milk")
    (tmp_path / "drawing.svg").write_text("<svg/>")
    return tmp_path


def sources(line: str) -> list[str]:
    return [name.source for name in find_names(line, find_file, EXTENSIONS)]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("what is in (number-42.png)?", "number-42.png"),
        ("what is in “number-42.png”, please", "number-42.png"),
        ("number-42.png: what is it", "number-42.png"),
        ("number-42.png's background?", "number-42.png"),
        ("what's in number-42.png\u2014is it red?", "number-42.png"),
        ("这张图number-42.png是什么?", "number-42.png"),
        ("(see @number-42.png.)", "number-42.png"),
        ("my cat.png what is it?", "my cat.png"),
        ("what is in my cat.png, then?", "my cat.png"),
        ("what is in pics/a b.png?", "pics/a b.png"),
        ("@my cat.png what is it?", "my cat.png"),
        ('@"my cat.png" what is it?', "my cat.png"),
        ("@'my cat.png' what is it?", "my cat.png"),
        ("@my\\ cat.png what is it?", "my cat.png"),
        (f"what is {SCREENSHOT}?", SCREENSHOT),
        (SCREENSHOT.replace("\u202f", " ") + " what is it?", SCREENSHOT),
        ("@" + SCREENSHOT.replace("\u202f", "\u00a0") + " what is it?", SCREENSHOT),
        ("what is in café.png?", unicodedata.normalize("NFD", "café.png")),
        ("see https://example.org/a.png?size=2, please", "https://example.org/a.png?size=2"),
        ("see (https://example.org/a_(b).png).", "https://example.org/a_(b).png"),
        ("@https://example.org/cat", "https://example.org/cat"),
        ("data:image/png;base64,aGk= what?", "data:image/png;base64,aGk="),
        ("what is file:///pics/a%20b.png?", "/pics/a b.png"),
        ("'file:///pics/a b.png' what?", "/pics/a b.png"),
    ],
)
def test_a_name_is_found_whatever_surrounds_it(folder: Path, line: str, name: str) -> None:
    assert sources(line) == [name]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("pictures/nope.png what is it?", "pictures/nope.png"),
        ("@nope.png", "nope.png"),
        ("@nope", "nope"),
        ("what is @nope, then?", "nope"),
        ("@pics/ what is it?", "pics/"),
        ("@notes.txt what is it?", "notes.txt"),
        ("drawing.svg what is it?", "drawing.svg"),
        ("nope.svg what is it?", "nope.svg"),
        ("what is in DCIM/IMG_1.CR2?", "DCIM/IMG_1.CR2"),
        ("Summarize /no/My Papers/scan.pdf", "/no/My Papers/scan.pdf"),
        ("what is in (nope.png)?", "nope.png"),
        ("what is in 'no such cat.png'?", "no such cat.png"),
        ("/no/My Pictures/cat.png what?", "/no/My Pictures/cat.png"),
        ("what is nope.png's colour?", "nope.png"),
        ("what is in *.png?", "*.png"),
        ("C:\\Users\\me\\nope.png what?", "C:\\Users\\me\\nope.png"),
        ("number-42.png and nope.png", "nope.png"),
    ],
)
def test_what_must_be_a_picture_and_is_none_is_never_sent(folder: Path, line: str, name: str) -> None:
    desk = Desk()
    told = desk.do(line)
    assert told.startswith("error: ")
    assert name in told
    assert "/text" in told
    assert desk.model.asked == []
    assert desk.chat.dialogue.attached == []
    assert desk.chat.draft == line
    assert desk.do(f"/text {line}") == ""
    assert desk.texts()[0] == line


def test_several_names_are_found_each_with_its_words(folder: Path) -> None:
    line = "compare number-42.png,my cat.png with pics/a b.png and @number-42.png"
    assert sources(line) == ["number-42.png", "my cat.png", "pics/a b.png", "number-42.png"]


def test_a_name_in_a_sentence_is_kept_beside_its_mark(folder: Path) -> None:
    assert find_pictures("Is pics/a\\ b.png a good name?", SOURCES).text == "Is a b.png: <image> a good name?"
    assert find_pictures("What is in (number-42.png)?", SOURCES).text == "What is in (<image>)?"
    assert find_pictures("number-42.png What is it?", SOURCES).text == "What is it?"
    assert find_pictures("Describe number-42.png", SOURCES).text == "Describe"


WORDS = st.sampled_from(["what", "is", "it?", "(so)", "a-b", "1.5", "e.g.", "it's", "«x»", "mail@x.org"])
MISSING = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "(", '"', "“", "@", "<", "看", "pics/", "./", "~/"]),
    st.sampled_from(["nope", "no-such", "IMG_1", "é", "图"]),
    st.sampled_from([".png", ".PNG", ".jpg", ".dng"]),
    st.sampled_from(["", ".", "?", ")", '"', "”", ",", ":", "'s", "…", "是", ">", "。"]),
)


@given(st.lists(WORDS, max_size=4), MISSING, st.lists(WORDS, max_size=4))
def test_no_surroundings_hide_a_picture_that_is_not_there(before: list[str], name: str, after: list[str]) -> None:
    line = " ".join([*before, name, *after])
    found = find_names(line, lambda path: None, EXTENSIONS)
    assert [each.is_certain for each in found] == [True]
    assert line[found[0].start : found[0].end].lower().strip("\"'“”()<>").endswith((".png", ".jpg", ".dng"))


@given(st.lists(WORDS, max_size=8))
def test_ordinary_words_are_no_names(words: list[str]) -> None:
    assert find_names(" ".join(words), lambda path: None, EXTENSIONS) == []


@given(st.text(max_size=60))
def test_names_are_apart_and_in_order(text: str) -> None:
    found = find_names(text, lambda path: None, EXTENSIONS)
    ends = [0, *(each.end for each in found)]
    assert all(end <= each.start < each.end <= len(text) for end, each in zip(ends, found, strict=False))


def test_a_long_text_without_names_asks_no_file_system() -> None:
    asked: list[str] = []
    find_names("word " * 20_000 + "x" * 10_000, lambda path: asked.append(path), EXTENSIONS)
    assert asked == []

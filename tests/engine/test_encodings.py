"""Lines, names and texts of every encoding come out as they were, however the stream is cut."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from dsvl_cli.engine.encodings import (
    decode_lines,
    decode_text,
    find_encoding,
    find_undecodable,
    read_line,
    read_stdin,
    read_text,
    split_names,
)
from dsvl_cli.errors import DsvlError

MARKS = {"utf-8": b"", "utf-8-sig": b"\xef\xbb\xbf", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
# With characters whose bytes look like line feeds: U+0A00, U+000A, U+0A0A, U+010A, U+0A0D.
TEXTS = st.lists(st.text(st.sampled_from("a\u0a00\u0a0a\u010a\u0a0dü🖼 ")), max_size=6)


def encoded(text: str, name: str) -> bytes:
    return MARKS[name] + text.encode(name.removesuffix("-sig"))


class Drops(io.RawIOBase):
    """A stream that comes one byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        byte = self._data.read(1)
        buffer[: len(byte)] = byte
        return len(byte)


@given(lines=TEXTS, name=st.sampled_from(sorted(MARKS)), end=st.sampled_from(["\n", "\r\n"]))
def test_lines_come_out_as_they_were(lines: list[str], name: str, end: str) -> None:
    data = encoded("".join(line + end for line in lines), name)
    for stream in (io.BytesIO(data), io.BufferedReader(Drops(data))):
        assert list(decode_lines(stream)) == lines
    assert decode_text(data, "x") == "".join(f"{line}\n" for line in lines)


@given(lines=TEXTS, name=st.sampled_from(sorted(MARKS)), limit=st.integers(4, 30))
def test_bytes_of_lines_are_all_read(lines: list[str], name: str, limit: int) -> None:
    data = encoded("\n".join(lines), name)
    file = io.BytesIO(data)
    encoding = find_encoding(file.read(3))
    file.seek(len(encoding.mark))
    whole, pieces = [], []
    while piece := read_line(file, 10_000, encoding):
        whole.append(encoding.decode(piece))
    assert "".join(whole) == "\n".join(lines)
    assert whole == "\n".join(lines).splitlines(keepends=True) or any("\u0a0d" in line for line in lines)
    file.seek(len(encoding.mark))
    while piece := read_line(file, limit, encoding):
        assert len(piece) <= limit + 1
        pieces.append(piece)
    assert MARKS[name] + b"".join(pieces) == data


@given(names=TEXTS, name=st.sampled_from(sorted(MARKS)), end=st.sampled_from(["\n", "\0"]))
def test_names_are_split_however_they_come(names: list[str], name: str, end: str) -> None:
    assume(end == "\n" or any(len(each) != 1 for each in names[:6]))  # which look like UTF-16 without a mark
    data = encoded("".join(each + end for each in names), name)
    for stream in (io.BytesIO(data), io.BufferedReader(Drops(data), 1)):
        assert list(split_names(stream)) == [each for each in names if each]


def test_bytes_that_are_not_utf8_stay_in_names() -> None:
    assert list(split_names(io.BytesIO(b"a\xff.png\nb.png"))) == ["a\udcff.png", "b.png"]


@pytest.mark.fault("texts in a wrong encoding")
def test_a_list_that_is_not_what_it_begins_as_is_refused() -> None:
    with pytest.raises(DsvlError, match="not UTF-16, which it begins with"):
        list(split_names(io.BytesIO(b"\xff\xfea.png\n\0\xd8")))


@pytest.mark.fault("texts in a wrong encoding")
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_a_list_in_utf16_without_a_mark_is_refused(codec: str) -> None:
    for names in ("a.png\nb.png\n", "/x\r\n", "C:\\pictures\\été.png\r\n"):
        with pytest.raises(DsvlError, match="UTF-16 without a byte order mark"):
            list(split_names(io.BytesIO(names.encode(codec))))
    assert list(split_names(io.BytesIO(b"a\0b\0c\0"))) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_no_list(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, kind)
    file.seek(0)
    with pytest.raises(DsvlError, match="a picture itself"):
        list(split_names(file))


def test_lines_that_are_no_text_are_shown_as_such() -> None:
    assert list(decode_lines(io.BytesIO(b"caf\xe9\nand on"))) == ["caf\ufffd", "and on"]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_text_or_one_line_of_error(data: bytes) -> None:
    for mark in MARKS.values():
        said = ""
        try:
            text = decode_text(mark + data, "name")
        except DsvlError as error:
            text, said = "", error.message
        assert "\n" not in said
        assert said.startswith("name:") or not said
        assert not {"\r", "\0"} & set(text)
        assert find_undecodable(text) is None


def test_a_text_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsvl_cli.engine.encodings._MAX_BYTES", 100)
    (tmp_path / "long.txt").write_text("x" * 101)
    with pytest.raises(DsvlError, match="larger than the limit"):
        read_text(tmp_path / "long.txt")


@pytest.mark.parametrize("name", ["nowhere", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_told(name: str) -> None:
    with pytest.raises(DsvlError, match="cannot be read"):
        read_text(name)


def test_standard_input_may_be_closed_or_a_test_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_stdin(io.StringIO("text")) == "text"
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DsvlError, match="standard input is closed"):
        read_stdin()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("café", None),
        ("caf\udce9", "byte 0xE9 after 'caf'"),
        ("\udcff\udcfe", "byte 0xFF at its beginning"),
        ("a\ud83d", "a lone surrogate after 'a'"),
    ],
)
def test_a_byte_of_an_argument_is_named(text: str, said: str | None) -> None:
    assert find_undecodable(text) == said

"""What is added to somebody's text file has its encoding and its line ends, and not a byte of theirs changes."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.batch.output.existing_text import ExistingText
from dsvl_cli.batch.output.formats import Existing
from dsvl_cli.batch.output.output import KeptOutput
from dsvl_cli.batch.output.sidecars import Sidecars
from dsvl_cli.batch.sources.scan import scan
from tests.batch.fakes import png
from tests.batch.output.test_output import SETTINGS, row_of

MARKS = {
    "utf-8": b"",
    "utf-8-sig": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
CODECS = {name: name.removesuffix("-sig") for name in MARKS}


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize(
    ("existing", "expected"),
    [("append", "ein Haus\nüber See\nA cat.\nAnd ‘more’.\n"), ("prepend", "A cat.\nAnd ‘more’.\nein Haus\nüber See\n")],
)
def test_a_text_keeps_its_encoding_and_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: str, existing: Existing, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(png(1))
    text = tmp_path / "a.txt"
    text.write_bytes(MARKS[name] + "ein Haus\nüber See\n".replace("\n", end).encode(CODECS[name]))
    (item,) = scan(["a.png"])
    with KeptOutput(tmp_path, "txt", Sidecars(tmp_path, existing), SETTINGS) as output:
        assert output.select(item) is not None
        output.write(row_of("a.png", "A cat.\nAnd ‘more’.", suspicion="cut off"))
        output.finish()
    assert text.read_bytes() == MARKS[name] + expected.replace("\n", end).encode(CODECS[name])
    with KeptOutput(tmp_path, "txt", Sidecars(tmp_path, existing), SETTINGS, retry_suspect=True) as output:
        assert output.select(item) is not None
        output.write(row_of("a.png", "A dog."))  # done again, it takes the place of the first
    again = expected.replace("A cat.\nAnd ‘more’.", "A dog.")
    assert text.read_bytes() == MARKS[name] + again.replace("\n", end).encode(CODECS[name])


@given(old=st.binary(max_size=40), name=st.sampled_from(sorted(MARKS)), text=st.text(max_size=10))
def test_no_byte_of_any_file_is_lost(old: bytes, name: str, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    mark, codec = MARKS[name], CODECS[name]
    for added in (ExistingText(mark + old).appended(text), ExistingText(mark + old).prepended(text)):
        assert added.startswith(mark)
        ends = [end.encode(codec) for end in ("\r\n", "\n", "")]
        kept = next(old.removesuffix(end) for end in ends if old.endswith(end))
        assert kept in added


@given(old=st.text(st.characters(codec="utf-8")), text=st.text(st.characters(codec="utf-8"), min_size=1))
def test_what_was_added_is_found_and_replaced(old: str, text: str) -> None:
    for name, mark in MARKS.items():
        added = ExistingText(mark + old.encode(CODECS[name])).appended(text)
        assert ExistingText(added).has(text)
        assert ExistingText(ExistingText(added).replaced(text, "x")).has("x")

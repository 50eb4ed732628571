from __future__ import annotations

import io

import pytest

from dsvl_cli.terminal.chat.script import ScriptLines


@pytest.mark.parametrize(
    "text", ["BMW or Audi?", "P5 is what?", "DDS or icns?", "RIFF?", "GIF or PNG?", "II* it is", "the ftyp box?"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_whatever_it_begins_with(text: str, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(f"{text}\nand?\n".encode(encoding)), encoding="utf-8")
    assert ScriptLines(stream).read() == text

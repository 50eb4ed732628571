from __future__ import annotations

import io
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.markdown import MarkdownStream
from dsvl_cli.terminal.plain import PlainStream, open_answer
from tests.terminal.window import Window


class Writes(io.StringIO):
    """Keeps what was written in one go apart."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)


def console_to(stdout: TextIO, **variables: str) -> Console:
    return Console(Environment(io.StringIO(), stdout, io.StringIO(), variables))


@given(st.lists(st.text("ab .!\r\n*é\x1b")), st.booleans())
def test_the_text_is_written_exactly_with_one_newline_at_its_end(pieces: list[str], sentences: bool) -> None:
    writes = Writes()
    answer = PlainStream(console_to(writes), sentences=sentences)
    for piece in pieces:
        answer.write(piece)
    answer.close()
    assert "".join(writes.pieces) == "".join(pieces).rstrip("\r\n") + "\n"


def test_pieces_are_written_as_they_come() -> None:
    writes = Writes()
    answer = PlainStream(console_to(writes))
    for piece in ("A red", " circle", ".\n", "\nNext"):
        answer.write(piece)
    assert writes.pieces == ["A red", " circle", ".", "\n\nNext"]


def test_sentences_are_written_whole() -> None:
    writes = Writes()
    answer = PlainStream(console_to(writes), sentences=True)
    for character in 'It is 3.5 cm. "Yes!" he said\n- item\n赤い円。青い四角。':
        answer.write(character)
    answer.close()
    assert writes.pieces == ["It is 3.5 cm. ", '"Yes!" ', "he said", "\n- item", "\n赤い円。", "青い四角。", "\n"]


def test_line_ends_that_are_cut_in_two_stay_one() -> None:
    window = Window()
    answer = PlainStream(window.console())
    for piece in ("a\r", "\nb\x1b", "[31m"):
        answer.write(piece)
    answer.close()
    assert window.rows == ["a", "b␛[31m"]


@pytest.mark.parametrize(("variables", "drawn"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_markdown_is_drawn_where_the_terminal_can(variables: dict[str, str], drawn: bool) -> None:
    window = Window(variables=variables)
    answer = open_answer(window.console())
    assert isinstance(answer, MarkdownStream) == drawn
    answer.write("a **strong** word")
    answer.close(interrupted=True)
    assert window.rows == ["a strong word" if drawn else "a **strong** word", "(interrupted)"]
    assert (b"\x1b" in window.bytes) == drawn


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_markdown_needs_unicode(encoding: str) -> None:
    assert isinstance(open_answer(Window(encoding=encoding).console()), PlainStream)


def test_who_wants_plain_text_gets_it() -> None:
    assert isinstance(open_answer(Window().console(), plain=True), PlainStream)
    assert isinstance(open_answer(Window().console(plain=True)), PlainStream)


def test_a_pipe_gets_plain_text() -> None:
    assert isinstance(open_answer(console_to(io.StringIO(), TERM="xterm-256color")), PlainStream)

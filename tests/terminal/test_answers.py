"""What complete answers look like on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from dsvl_cli.terminal.answers import say_probabilities, write_line, write_paragraphs, write_value
from dsvl_cli.terminal.console import Console, Environment
from tests.terminal.window import Window

TEXTS = ["One.", "A list:\n\n- red\n- blue", "Ünï\x1b[31m"]


def piped() -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Console(Environment(io.StringIO(), out, err, {})), out, err


def test_samples_are_apart_by_empty_lines_and_exact_in_a_pipe() -> None:
    console, out, _ = piped()
    write_paragraphs(console, TEXTS)
    assert out.getvalue() == "\n\n".join(TEXTS) + "\n"


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
@pytest.mark.parametrize("columns", [40, 80])
def test_samples_have_numbers_on_a_terminal_and_their_lines_are_below(term: str, columns: int) -> None:
    window = Window(columns, variables={"TERM": term})
    write_paragraphs(window.console(), TEXTS)
    rows = window.rows
    numbered = [row.split()[0].rstrip(".") for row in rows if row and row.split()[0].rstrip(".").isdigit()]
    assert numbered == ["1", "2", "3"]
    below = [row for row in rows if "red" in row or "blue" in row]
    assert len(below) == 2
    assert all(row.startswith("  ") for row in below)
    assert b"\x1b[31m" not in window.bytes


def test_values_are_one_line_in_a_pipe_and_indented_on_a_terminal() -> None:
    console, out, _ = piped()
    write_value(console, {"a": [1, "é"]})
    assert out.getvalue() == '{"a": [1, "é"]}\n'
    window = Window()
    write_value(window.console(), {"a": 1})
    assert window.rows == ["{", '  "a": 1', "}"]


def test_probabilities_are_said_on_a_terminal_only() -> None:
    console, out, err = piped()
    window = Window()
    for each in (console, window.console()):
        write_line(each, "b")
        say_probabilities(each, {"a": 0.3, "b": 0.7})
    assert (out.getvalue(), err.getvalue()) == ("b\n", "")
    assert window.rows == ["b", "b 70.0%, a 30.0%"]

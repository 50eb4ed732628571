"""What is shown of a wait, in windows of any width."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.progress import Reading
from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.waiting import CTRL_C_STOPS, ReadingWait, Wait
from tests.terminal.window import Window


def reading(tokens: int, total: int, picture: int = 0, pictures: int = 0) -> ReadingWait:
    wait = ReadingWait("reading", CTRL_C_STOPS, "reading")
    wait.update(Reading(tokens, total, picture, pictures))
    return wait


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (80, "reading 312 of 623 tokens, 0:12, Ctrl-C stops"),
        (40, "reading 312 of 623 tokens, 0:12"),
        (30, "reading 312/623, 0:12"),
        (20, "reading 50%, 0:12"),
        (10, "0:12"),
    ],
)
def test_a_prefill_has_an_amount_a_clock_and_a_way_out(width: int, shown: str) -> None:
    assert reading(312, 623).line(12.3, width) == shown


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (80, "looking at picture 1 of 2, 0:03, Ctrl-C stops"),
        (40, "looking at picture 1 of 2, 0:03"),
        (25, "picture 1 of 2, 0:03"),
        (20, "picture 1/2, 0:03"),
    ],
)
def test_the_encoding_of_pictures_is_part_of_it(width: int, shown: str) -> None:
    assert reading(0, 623, 1, 2).line(3, width) == shown


numbers = st.integers(0, 10**6)


@given(st.integers(0, 200), numbers, numbers, st.integers(0, 20), st.integers(0, 20), st.floats(0, 10**6))
def test_it_always_fits(width: int, tokens: int, total: int, picture: int, pictures: int, seconds: float) -> None:
    for wait in (reading(tokens, total, picture, pictures), Wait("x" * 50, "y" * 30)):
        assert len(wait.line(seconds, width)) <= max(width - 1, 0)


@given(st.integers(0, 10**5), st.integers(6, 200))
def test_there_is_a_clock_at_any_width(seconds: int, width: int) -> None:
    clock = f"{seconds // 60}:{seconds % 60:02d}" if seconds < 3600 else ":"
    assert clock[: width - 1] in reading(1, 2).line(seconds, width)


def test_the_status_bar_stays_below_and_both_vanish() -> None:
    window = Window(40, 5)
    console = window.console()
    for number in range(4):
        console.status(f"line {number}")
    with console.working(Wait("reading", CTRL_C_STOPS, below=lambda width: "tiny | 5 tokens used"[:width])):
        deadline = time.monotonic() + 10
        while not any("tiny |" in row for row in window.rows) and time.monotonic() < deadline:
            time.sleep(0.01)
        shown = [row.strip() for row in window.rows]
        assert shown[-1] == "tiny | 5 tokens used"
        assert "reading, 0:00, Ctrl-C stops" in shown[-2]
        console.status("a note")
    console.write("answer\n")
    assert window.rows == [*(f"line {number}" for number in range(4)), "a note", "answer"]


@pytest.mark.parametrize("variables", [{}, {"TERM": "dumb"}])
def test_where_no_line_can_be_redrawn_a_state_is_one_line(variables: dict[str, str]) -> None:
    window = Window(variables=variables)
    console = window.console(plain=not variables)
    with console.working(Wait("loading tiny", CTRL_C_STOPS, "loading tiny")), console.working(Wait("something else")):
        time.sleep(0.25)
    assert window.bytes == b"loading tiny\r\n" or window.bytes == b"loading tiny\n"


def test_a_state_is_not_written_into_logs() -> None:
    log = io.StringIO()
    console = Console(Environment(io.StringIO(), io.StringIO(), log, {}), plain=True)
    with console.working(Wait("loading tiny", CTRL_C_STOPS, "loading tiny")):
        console.enter_state("answering")
    assert log.getvalue() == ""


def test_a_wait_is_shown_while_the_answer_goes_into_a_file(tmp_path: Path) -> None:
    window = Window()
    with (tmp_path / "out.txt").open("w") as stdout:
        console = Console(Environment(io.StringIO(), stdout, window.environment.stderr, window.variables))
        with console.working("reading"):
            deadline = time.monotonic() + 10
            while not window.bytes and time.monotonic() < deadline:
                time.sleep(0.01)
    assert b"reading" in window.bytes
    assert (tmp_path / "out.txt").read_bytes() == b""

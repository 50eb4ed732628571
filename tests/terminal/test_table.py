from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.terminal.table import align

WORD = st.text(alphabet="abcxyz", min_size=1, max_size=8)
ROWS = st.lists(st.tuples(WORD, WORD, st.lists(WORD, min_size=1, max_size=12).map(" ".join)), max_size=6)


def test_columns_stand_one_under_the_other() -> None:
    assert align([("a", "bb", "c"), ("aaa", "b", "cc")], 80) == ["a    bb  c", "aaa  b   cc"]


def test_a_long_last_column_is_broken_under_itself() -> None:
    assert align([("name", "some words that take more than one line")], 32) == [
        "name  some words that take more",
        "      than one line",
    ]


@given(ROWS, st.integers(20, 100))
def test_every_word_is_there_and_no_line_is_too_wide(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = align(rows, width)
    assert " ".join(lines).split() == " ".join(" ".join(row) for row in rows).split()
    assert all(len(line) <= width for line in lines)

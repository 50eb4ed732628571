from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console as RichConsole

from dsvl_cli.terminal.document import RowRenderer, parse_blocks
from dsvl_cli.terminal.sanitize import sanitize
from tests.terminal.escapes import ESCAPES
from tests.terminal.markdown_texts import BLOCKS, DOCUMENTS

WIDTHS = st.sampled_from([20, 21, 27, 40, 80, 200])


def renderer(width: int) -> RowRenderer:
    return RowRenderer(RichConsole(width=width, force_terminal=True, _environ={"TERM": "xterm-256color"}), width)


def rows_of(text: str, width: int = 80) -> list[str]:
    return [row.text for block in parse_blocks(text) for row in renderer(width).rows(block)]


def letters(text: str) -> Counter[str]:
    return Counter(character for character in text if character.isalpha())


def shown_letters(text: str) -> Counter[str]:
    """The letters of the source without what only marks something up."""
    return letters(re.sub(r"&\w+;|```python", "", text))


@settings(max_examples=50)
@given(DOCUMENTS, WIDTHS)
@example("> | a | b |\n> |---|---|\n> | 1 | 2 | lost |", 80)
@example("> " * 30 + "deep", 20)
@example("- " * 30 + "deep", 80)
@example("\n".join("  " * level + f"- level {level}" for level in range(30)), 40)
@example("|" + "cell|" * 30 + "\n|" + "---|" * 30 + "\n|" + "text|" * 30, 80)
def test_nothing_is_lost_and_nothing_is_too_wide(text: str, width: int) -> None:
    rows = rows_of(sanitize(text), width)
    assert not shown_letters(text) - letters("".join(rows))
    assert all(cell_len(row) <= width for row in rows)


@settings(max_examples=50)
@given(DOCUMENTS)
def test_the_blocks_make_up_the_text(text: str) -> None:
    text = sanitize(text)
    blocks = parse_blocks(text)
    lines = text.split("\n")
    for block in blocks:
        assert lines[block.start :][: block.source.count("\n") + 1] == block.source.split("\n")
    assert "\n".join(block.source for block in blocks).split() == text.split()


@settings(max_examples=80)
@given(BLOCKS, st.data(), WIDTHS)
def test_settled_rows_stay_whatever_follows(text: str, data: st.DataObject, width: int) -> None:
    cut = data.draw(st.integers(0, len(text)))
    before = parse_blocks(sanitize(text[:cut]))
    after = parse_blocks(sanitize(text))
    if len(before) != 1:
        return
    settled = [row.text for row in renderer(width).settled_rows(before[0])]
    rows = [row.text for row in renderer(width).rows(after[0])]
    if rows != sanitize(text).split("\n")[: len(rows)]:  # not shown as it was written
        assert rows[: len(settled)] == settled


def test_rows_settle_before_their_block_ends() -> None:
    def settled(text: str) -> int:
        return len(renderer(20).settled_rows(parse_blocks(text)[0]))

    assert settled("word " * 40) >= 8
    assert settled("word " * 20 + "*open " * 20) in range(3, 6)
    assert settled("```python\n" + "x = 1\n" * 9) >= 8
    assert settled("- item\n" * 9) >= 8
    assert settled("> - item\n" * 9) >= 8
    assert settled("1 * 2 snake_case " * 20) >= 15
    assert settled("| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 9) == 0
    assert settled("word\n" * 9 + "a | b\n|--") >= 8


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[name](http://a.b/c)", ["name (http://a.b/c)"]),
        ('[name](http://a.b/c "title")', ['name (http://a.b/c "title")']),
        ("<http://a.b/c> <me@a.b>", ["http://a.b/c me@a.b"]),
        ("[http://bank.example](http://evil.example)", ["http://bank.example (http://evil.example)"]),
        ("![alt](http://a.b/c.png)", ["!alt (http://a.b/c.png)"]),
        ("[name]: http://a.b/c\n\n[name]", ["[name]: http://a.b/c", "[name]"]),
        ("a <b>bold</b> <br>\n<div>\nb", ["a <b>bold</b> <br>", "<div>", "b"]),
        ("one\ntwo  \nthree", ["one", "two", "three"]),
        ("text\n---", ["text", "─" * 80]),
        ("# *Big* `code`", ["Big code"]),
        ("```text that follows\n```", ["text that follows"]),
        ("```\n  code\n\n\tmore\n\n```", ["  code", "", "    more"]),
        ("&lt;b&gt; &amp; &#27;[31m &#x202e;x &lrm; &#8232;", ["<b> & �[31m �x � �"]),
        ("[a](http://x/&#x202e;y)", ["a (http://x/%E2%80%AEy)"]),
        ("\\*not soft\\* [b] :smile: [/b]", ["*not soft* [b] :smile: [/b]"]),
        # To Markdown these are lists, headings and quotations of nothing.
        ("42.", ["42."]),
        ("7)\n", ["7)"]),
        ("10.\n11.", ["10.", "11."]),
        ("- 42.", ["- 42."]),
        ("> 7.", ["> 7."]),
        ("-", ["-"]),
        ("#", ["#"]),
        ("It says:\n\n42.\n\nThat is all.", ["It says:", "42.", "That is all."]),
        ("1. one\n2.\n3. three", [" 1 one", " 2", " 3 three"]),
        ("- a\n- 42.", [" • a", " •  42"]),
    ],
)
def test_what_stands_there(text: str, rows: list[str]) -> None:
    assert rows_of(text) == rows


def test_the_tenth_item_does_not_move_the_first() -> None:
    text = "\n".join(f"{number}. item" for number in range(1, 13))
    assert rows_of(text)[:3] == rows_of(text.partition("\n4.")[0])


def test_a_table_stands_in_columns_and_breaks_long_words() -> None:
    rows = rows_of(f"| Shape | Colour |\n|---|--:|\n| circle | red |\n| {'x' * 40} | blue |", width=30)
    assert "".join(rows).count("x") == 40
    colours = [row for row in rows if row.endswith(("Colour", "red", "blue"))]
    assert len({cell_len(row) for row in colours}) == 1


def test_styles_are_drawn() -> None:
    (row,) = renderer(80).rows(parse_blocks("a **strong** word")[0])
    assert row.text == "a strong word"
    assert row.styled == "a \x1b[1mstrong\x1b[0m word"


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_entities_bring_no_control_character(escape: str) -> None:
    encoded = "".join(f"&#{ord(character)};" for character in escape)
    for text in (encoded, f"`{encoded}`", f"[{encoded}](http://a.b/{encoded})", f"|{encoded}|\n|---|\n|{encoded}|"):
        for row in rows_of(text):
            assert sanitize(row) == row

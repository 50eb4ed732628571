from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.batch.quality import CUT, ECHO, EMPTY, REPEATS, find_suspicion
from dsvl_cli.engine.options import DEFAULT_PROMPT

ASKED = "What is in this picture?"
PROSE = """A red circle stands to the left of a blue square on a plain white ground. Above them both, near the edge,
a small yellow triangle points at the corner. Nothing else can be seen. The circle is larger than the square."""

words = st.text(string.ascii_lowercase, min_size=2, max_size=9)
phrases = st.lists(words, min_size=4, max_size=12, unique=True).map(" ".join)
finish = st.sampled_from(["stop", "length"])


def verdict(text: str, finish_reason: str = "stop", prompt: str = ASKED) -> str | None:
    return find_suspicion(text, prompt, finish_reason)  # type: ignore[arg-type]


@given(st.text(" \n\t\u200b\u2028\x00\ufeff"), finish)
def test_nothing_to_see_is_empty(text: str, reason: str) -> None:
    assert verdict(text, reason) == EMPTY


@given(phrases, st.integers(5, 40), st.sampled_from([" ", ". ", ", ", "\n", ".\n\n", "! "]), finish)
def test_a_phrase_again_and_again_is_a_loop(phrase: str, times: int, between: str, reason: str) -> None:
    loop = between.join([phrase] * times) + between
    assert verdict(loop, reason) == REPEATS
    assert verdict(PROSE + loop, reason) == REPEATS
    assert verdict(loop + PROSE, reason) == REPEATS


@given(phrases, st.integers(6, 40), st.integers(0, 60))
def test_a_loop_may_be_cut_anywhere(phrase: str, times: int, cut: int) -> None:
    loop = f"{phrase}. " * times
    assert verdict(loop[: max(len(loop) - cut, len(phrase) * 5 + 12)], "length") == REPEATS


@pytest.mark.parametrize("piece", ["no ", "ha", "a", "the the ", "red, ", "very, very ", "ра", "哈"])
def test_short_pieces_need_more(piece: str) -> None:
    assert verdict(f"It is {piece * 3}") is None
    assert verdict(f"It is {piece * 40}") == REPEATS


@pytest.mark.parametrize(
    "piece", ["一只红色的猫坐在垫子上。", "図には赤い円があります、", "Красный круг стоит слева. "]
)
def test_loops_of_other_scripts(piece: str) -> None:
    assert verdict(piece * 4) == REPEATS
    assert verdict(piece * 2) is None


def test_sentences_that_take_turns_are_a_loop() -> None:
    chance = random.Random(0)
    sentences = [f"{sentence.strip()}. " for sentence in PROSE.replace("\n", " ").split(".") if sentence.strip()]
    assert verdict("".join(chance.choice(sentences[:3]) for _ in range(25))) == REPEATS
    assert verdict(PROSE) is None


@given(st.lists(words, min_size=1, max_size=150, unique=True), st.sampled_from([" ", ", ", "\n", "\n- ", " | "]))
def test_different_words_never_are(found: list[str], between: str) -> None:
    assert verdict(between.join(found)) is None


@given(
    st.lists(st.lists(st.integers(0, 99), min_size=3, max_size=3), min_size=1, max_size=30),
    st.sampled_from(["{} {} {}\n", "| {} | {} | {} |\n", "{},{},{}\n", "a[{}][{}] = {};\n", "- {} of {} in {}\n"]),
)
def test_tables_lists_and_code_of_numbers_never_are(rows: list[list[int]], form: str) -> None:
    assert verdict("".join(form.format(*row) for row in rows)) is None


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n|---|---|\n" + "| 0 | 0 |\n" * 20,
        "| name | seen |\n| --- | --- |\n" + "".join(f"| {name} | yes |\n" for name in "abcdefghijklmnop"),
        "\n".join(f"{n}. A red circle" for n in range(1, 30)),
        "- red\n- red\n- red\n- red\n- red\n- blue",
        "| yes |\n" * 12,
        "0, " * 100 + "1",
        "1 1 1 1 1 1 1 1 1 1",
        "[" + "0x00, " * 32 + "]",
        "=" * 120 + "\nTitle\n" + "=" * 120,
        "Chapter 1 " + "." * 90 + " 5",
        "        }\n" * 10,
        "for i in a:\n    for j in b:\n        for k in c:\n            f(i)\n            f(i)\n            f(i)\n",
        "x = 0;\ny = 0;\nx = 0;\ny = 0;\nx = 0;\ny = 0;\nx = 0;\ny = 0;\n",
        "<td></td><td></td><td></td><td></td><td></td><td></td>",
        "No, no, no!",
        "It is a very, very, very, very large dog.",
        "LLLLLL",
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
        "A red circle and a blue circle, a red square and a blue square, a red triangle and a blue triangle.",
        "?",
        "12",
    ],
)
def test_what_repeats_itself_in_earnest(text: str) -> None:
    assert verdict(text) is None


@pytest.mark.parametrize("piece", ["0, ", "| 0 ", "| yes ", "- red\n", "x = 0;\n", "=", "...\n", "<td></td>"])
def test_even_those_are_a_loop_when_only_the_limit_ends_them(piece: str) -> None:
    assert verdict("The table: " + piece * 300, "length") == REPEATS


@given(st.lists(words, min_size=2, max_size=12).map(" ".join), st.integers(1, 3))
def test_the_prompt_again_is_an_echo(prompt: str, times: int) -> None:
    for said in (prompt, prompt.upper() + ".", f" {prompt}? \n" * times):
        assert verdict(said, prompt=f"<image>{prompt}") in (ECHO, REPEATS)
    assert verdict("Quite another matter altogether", prompt=prompt) is None


def test_what_is_no_echo() -> None:
    assert verdict("Yes.", prompt="Is it a dog? Yes or no?") is None
    assert verdict(f"{DEFAULT_PROMPT} {PROSE}", prompt=DEFAULT_PROMPT) is None
    assert verdict("a dog", prompt="") is None
    assert verdict("dog", prompt="<image>") is None
    assert verdict(f"{ASKED} A dog.") == ECHO


def test_the_limit_is_told_last() -> None:
    assert verdict(PROSE, "length") == CUT
    assert verdict(ASKED, "length") == ECHO
    assert verdict(PROSE, "interrupted") is None


@given(st.text(max_size=400), st.text(max_size=50), finish)
def test_any_text_gets_a_verdict(text: str, prompt: str, reason: str) -> None:
    assert verdict(text, reason, prompt) in (None, EMPTY, REPEATS, ECHO, CUT)
    if reason == "length":
        assert verdict(text, reason, prompt) is not None

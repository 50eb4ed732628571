from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.text.detokenizer import Answer, Detokenizer, Piece

TOKENIZER = Tokenizer.from_file(str(EMBEDDED_FOLDER / "tokenizer.json"))
VOCABULARY = TOKENIZER.get_vocab_size()
END = TOKENIZER.token_to_id("<｜end▁of▁sentence｜>") or 0

ids_of_anything = st.lists(st.integers(0, VOCABULARY - 1), max_size=40)


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return ids


def make_answer(stop: Sequence[str] = (), max_new_tokens: int = 1000, strip_space: bool = True) -> Answer:
    return Answer(TOKENIZER, frozenset({END}), stop, max_new_tokens, strip_space=strip_space)


def feed(answer: Answer, ids: Sequence[int]) -> list[Piece]:
    pieces = []
    for token_id in ids:
        pieces.append(answer.add(token_id))
        if pieces[-1].finish_reason:
            break
    return pieces


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@given(ids_of_anything)
def test_pieces_join_to_the_decoding_of_any_ids(ids: list[int]) -> None:
    detokenizer = Detokenizer(TOKENIZER)
    text = "".join([*map(detokenizer.add, ids), detokenizer.finish()])
    assert text == TOKENIZER.decode(ids, skip_special_tokens=True)


@given(st.text(max_size=30))
def test_characters_split_over_tokens_come_out_whole(text: str) -> None:
    detokenizer = Detokenizer(TOKENIZER)
    pieces = [detokenizer.add(token_id) for token_id in encode(text)]
    assert "".join(pieces) + detokenizer.finish() == TOKENIZER.decode(encode(text))
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_an_emoji_is_one_piece_although_it_is_several_tokens() -> None:
    ids = encode("🦔")
    assert len(ids) > 1
    detokenizer = Detokenizer(TOKENIZER)
    assert [detokenizer.add(i) for i in ids] == [""] * (len(ids) - 1) + ["🦔"]


@given(ids_of_anything)
def test_an_answer_cut_anywhere_shows_all_its_text_and_ids(ids: list[int]) -> None:
    answer = make_answer(max_new_tokens=max(len(ids), 1), strip_space=False)
    pieces = feed(answer, [i for i in ids if i != END])
    if pieces and pieces[-1].finish_reason:
        assert text_of(pieces) == TOKENIZER.decode([i for i in ids if i != END], skip_special_tokens=True)
        assert [i for piece in pieces for i in piece.token_ids] == [i for i in ids if i != END]


def test_only_one_space_before_the_answer_is_left_out() -> None:
    assert text_of(feed(make_answer(), [*encode("  two"), END])) == " two"
    assert text_of(feed(make_answer(), [*encode(" A red circle."), END])) == "A red circle."
    assert text_of(feed(make_answer(strip_space=False), [*encode(" A"), END])) == " A"


def test_the_end_token_is_not_part_of_the_answer() -> None:
    pieces = feed(make_answer(), [*encode(" Yes"), END])
    assert pieces[-1] == Piece("", (), "stop")
    assert END not in [i for piece in pieces for i in piece.token_ids]


def test_length_is_said_at_the_last_token() -> None:
    pieces = feed(make_answer(max_new_tokens=3), encode(" A red circle on a white background."))
    assert [piece.finish_reason for piece in pieces] == [None, None, "length"]


@pytest.mark.parametrize("stop", ["circle", "red circle on", " on a w", "background.", "A"])
def test_a_stop_string_across_tokens_ends_the_answer_before_it(stop: str) -> None:
    text = "A red circle on a white background."
    pieces = feed(make_answer([stop]), [*encode(" " + text), END])
    assert text_of(pieces) == text[: text.index(stop)]
    assert pieces[-1].finish_reason == "stop"


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_the_earliest_of_several_stop_strings_counts(text: str, stop: list[str]) -> None:
    ends = [text.find(string) for string in stop if string in text]
    pieces = feed(make_answer(stop, strip_space=False), [*encode(text), END])
    shown = text_of(pieces)
    # Tokens come one by one: the answer may end at a string that is complete before an earlier one is.
    assert shown in {text[:end] for end in ends} if ends else shown == text
    assert not any(string in shown for string in stop)


def test_text_that_may_begin_a_stop_string_is_held_back_and_then_given_out() -> None:
    pieces = feed(make_answer(["\n\nUser:"]), [*encode(" One\n\nUse it."), END])
    assert text_of(pieces) == "One\n\nUse it."
    shown = ""
    for piece in pieces[:-1]:
        shown += piece.text
        assert not shown.endswith("\n\nUse")


def test_ids_are_given_out_with_their_text() -> None:
    """An interrupted answer's ids must not say more than what was shown."""
    pieces = feed(make_answer(["zzz"]), encode(" A red cir"))
    for count in range(len(pieces)):
        ids = [i for piece in pieces[:count] for i in piece.token_ids]
        assert TOKENIZER.decode(ids).removeprefix(" ") == text_of(pieces[:count])

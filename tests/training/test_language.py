"""Answers follow from the scene, and the shipped tokenizer says them without loss."""

from __future__ import annotations

import random

import pytest
from transformers import PreTrainedTokenizerFast

from training.conversations import difference, follow_up, sample_dialogue, sample_long_dialogue, sample_pair, summary
from training.evaluate import SKILLS, TINY
from training.language import MAKERS, Exchange, ask, description
from training.scenes import Number, Scene, Shape, sample_scene, split_random
from training.sequences import Packer
from training.wording import expand, vary

CIRCLE = Shape("circle", "red", (220, 30, 30), 0.18, 0.5, 0.12)
SQUARE = Shape("square", "blue", (30, 30, 220), 0.82, 0.82, 0.12)
TWO = Scene("white", (255, 255, 255), (CIRCLE, SQUARE))
NUMBER = Scene("yellow", (255, 255, 0), number=Number("42", "black", (0, 0, 0), 0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(TINY)
    return loaded


def test_descriptions() -> None:
    assert description(TWO) == "A red circle and a blue square on a white background."
    assert description(NUMBER) == "The number 42 in black on a yellow background."
    assert summary((TWO, NUMBER)) == "The first shows a red circle and a blue square, the second the number 42."
    assert difference(TWO, TWO) == "They show the same."


@pytest.mark.parametrize(
    ("skill", "answers"),
    [
        ("colour", {"Red.", "Blue."}),
        ("kind", {"A circle.", "A square."}),
        ("place", {"Left.", "Bottom right."}),
        ("background", {"White."}),
        ("count", {"Two.", "One.", "None."}),
        ("presence", {"Yes.", "No."}),
        ("what_at", {"A red circle.", "A blue square."}),
        ("list", {"- a red circle\n- a blue square"}),
    ],
)
def test_answers_follow_from_the_scene(skill: str, answers: set[str]) -> None:
    rng = random.Random(3)
    made = [MAKERS[skill][1](TWO, rng) for _ in range(120)]
    assert {exchange.answer for exchange in made if exchange is not None and exchange.skill == skill} == answers


def test_presence_is_true_to_the_scene() -> None:
    rng = random.Random(4)
    for _ in range(300):
        exchange = MAKERS["presence"][1](TWO, rng)
        assert exchange is not None
        for kind, colour, is_there in (("circle", "red", True), ("square", "red", False), ("star", "red", False)):
            if f"a {colour} {kind}" in exchange.question:
                assert exchange.answer == ("Yes." if is_there else "No.")


def test_a_follow_up_keeps_what_was_spoken_about() -> None:
    asked = Exchange("colour", "What colour is the circle?", "Red.", 0)
    found = {
        exchange.question: exchange.answer for i in range(200) if (exchange := follow_up(TWO, asked, random.Random(i)))
    }
    assert found["Where is it?"] == "Left."
    assert found["And the square?"] == "Blue."
    assert found["And the background?"] == "White."


def test_every_template_is_expanded_and_varied_without_marks_left() -> None:
    for index in range(1500):
        rng = split_random("evaluation", 7, index)
        question = vary(ask(sample_scene(rng), rng).question, rng)
        assert not set("[]{}|") & set(question), question
    assert expand("[a [b|c]|d]", random.Random(0)) in {"a b", "a c", "d"}


def test_every_answer_survives_the_shipped_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    for index in range(300):
        dialogue = sample_dialogue(split_random("evaluation", 8, index), branches=4)
        for turn in (*dialogue.trunk, *(turn for branch in dialogue.branches for turn in branch)):
            ids = tokenizer.encode(f" {turn.answer}", add_special_tokens=False)
            assert tokenizer.decode(ids) == f" {turn.answer}"
    assert len(tokenizer.encode("742", add_special_tokens=False)) == 3


def test_branches_are_blind_to_each_other(tokenizer: PreTrainedTokenizerFast) -> None:
    packer = Packer(tokenizer)
    one = sample_dialogue(split_random("evaluation", 9, 0), 12)
    many = sample_long_dialogue(split_random("evaluation", 9, 1), 12)
    for dialogue in (one, many):
        row = packer.row(dialogue, 1280)
        assert row is not None
        batch = packer.batch([row])
        mask = batch.mask()[0, 0]
        assert int(batch.image_at.sum()) == 64 * len(batch.pictures)
        for at in range(0, 1280, 37):
            seen = set(batch.branch[0][mask[at]].tolist())
            assert seen <= {0, int(batch.branch[0][at])}


def test_evaluation_draws_what_it_names() -> None:
    for number, (name, draw) in enumerate(SKILLS.items()):
        for index in range(5):
            question = draw(split_random("evaluation", 1, number * 1000 + index))
            assert question.turns[-1].answer, name
    assert len(sample_pair(random.Random(0))) == 2

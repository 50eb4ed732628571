"""Evaluate a checkpoint: exact match of greedy answers on unseen pictures, with the real processor and `generate`.

python -m training.evaluate [--checkpoint DIR] [--per-skill 500] [--skills NAME ...] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from transformers import DeepseekVLForConditionalGeneration
from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor

from training.conversations import (
    Part,
    Turn,
    ask_difference,
    ask_recall,
    ask_which,
    follow_up,
    inline_question,
    sample_pair,
)
from training.language import DESCRIBE_DEFAULT, MAKERS, Exchange, description
from training.scenes import Scene, draw_scene, sample_scene, split_random
from training.wording import vary

TINY = Path(__file__).resolve().parent.parent / "dsvl_cli" / "tiny"
_BATCH = 50  # conversations
MOST_NEW_TOKENS = 80


@dataclass(frozen=True)
class Question:
    """Pictures and a conversation, whose last answer is evaluated."""

    scenes: tuple[Scene, ...]
    turns: tuple[Turn, ...]


Conversation = list[dict[str, Any]]  # messages for `apply_chat_template` of transformers
Draw = Callable[[random.Random], Question]


def _asked(skill: str, shapes: int | None, number: bool = False) -> Draw:
    """Return a sampler of questions of one skill about a new scene; `shapes` None samples one to three."""

    def draw(rng: random.Random) -> Question:
        while True:
            scene = sample_scene(rng, None if number else shapes or rng.randint(1, 3), number)
            found = MAKERS[skill][1](scene, rng)
            if found is not None and found.skill == skill:
                return Question((scene,), (Turn((0, vary(found.question, rng)), found.answer, skill),))

    return draw


def _default_description(shapes: int | None) -> Draw:
    def draw(rng: random.Random) -> Question:
        scene = sample_scene(rng, shapes, shapes is None)
        return Question((scene,), (Turn((0, DESCRIBE_DEFAULT), description(scene), "describe"),))

    return draw


def _absent(rng: random.Random) -> Question:
    while True:
        scene = sample_scene(rng, rng.randint(1, 3))
        found = MAKERS[rng.choice(("colour", "kind", "place"))][1](scene, rng)
        if found is not None and found.skill == "absent":
            return Question((scene,), (Turn((0, vary(found.question, rng)), found.answer, "absent"),))


def _followup(rng: random.Random) -> Question:
    """Sample a follow-up question to a first one that is answered correctly in the conversation."""
    while True:
        scene = sample_scene(rng)
        first = MAKERS[rng.choice(("describe", "colour", "place", "kind", "presence", "number"))][1](scene, rng)
        if first is None or first.skill == "absent":
            continue
        second = follow_up(scene, first, rng)
        if second is not None:
            opening = Turn((0, vary(first.question, rng)), first.answer, first.skill)
            return Question((scene,), (opening, Turn((vary(second.question, rng),), second.answer, "followup")))


def _of_two(asker: Callable[[tuple[Scene, ...], random.Random], Exchange], inline: bool = False) -> Draw:
    """Return a sampler of questions about two pictures: in one message, or with the first one described before."""

    def draw(rng: random.Random) -> Question:
        scenes = sample_pair(rng)
        exchange = asker(scenes, rng)
        text = vary(exchange.question, rng)
        roll = rng.random()
        if inline and roll < 0.25:
            while (turn := inline_question(scenes, rng)).skill != "difference":
                pass
            return Question(scenes, (turn,))
        if roll < 0.65:
            return Question(scenes, (Turn((0, 1, text), exchange.answer, exchange.skill),))
        opening = Turn((0, DESCRIBE_DEFAULT), description(scenes[0]), "describe")
        if roll < 0.85:
            return Question(scenes, (opening, Turn((1, text), exchange.answer, exchange.skill)))
        second = Turn((1, DESCRIBE_DEFAULT), description(scenes[1]), "describe")
        return Question(scenes, (opening, second, Turn((text,), exchange.answer, exchange.skill)))

    return draw


SKILLS: dict[str, Draw] = {
    "describe 1": _default_description(1),
    "describe 2": _default_description(2),
    "describe 3": _default_description(3),
    "describe number": _default_description(None),
    "number": _asked("number", None, number=True),
    **{f"{skill} of 1": _asked(skill, 1) for skill in ("colour", "kind", "place", "presence", "background")},
    **{f"{skill} of 1-3": _asked(skill, None) for skill in ("colour", "kind", "place", "presence", "background")},
    "count": _asked("count", None),
    "what is where": _asked("what_at", None),
    "absent thing": _absent,
    "list": _asked("list", None),
    "detail": _asked("detail", None),
    "follow-up": _followup,
    "which of two": _of_two(ask_which),
    "recall of two": _of_two(ask_recall),
    "difference of two": _of_two(ask_difference, inline=True),
}


def _message_parts(parts: Iterable[Part], pictures: list[Image.Image]) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": pictures[part]}
        for part in parts
    ]


def _messages(question: Question, rng: random.Random) -> Conversation:
    pictures = [draw_scene(scene, rng.randint(64, 640)) for scene in question.scenes]
    messages: Conversation = []
    for turn in question.turns:
        messages.append({"role": "user", "content": _message_parts(turn.parts, pictures)})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return messages[:-1]


def answer(
    model: DeepseekVLForConditionalGeneration, processor: DeepseekVLProcessor, conversations: list[Conversation]
) -> list[str]:
    """Return greedy answers to conversations with pictures, as one batch."""
    inputs: Any = processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        processor_kwargs={"padding": True},
    )  # fmt: skip
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    with torch.inference_mode():
        output = cast("Any", model).generate(**inputs, do_sample=False, max_new_tokens=MOST_NEW_TOKENS)
    new = output[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]


def evaluate(
    answer_all: Callable[[list[Conversation]], list[str]],
    skills: Iterable[str] | None = None,
    per_skill: int = 500,
    seed: int = 0,
    show_wrong: int = 0,
) -> dict[str, float]:
    """Return the fraction of exactly correct answers (0 to 1) for each skill of `SKILLS`.

    Args:
        answer_all: returns the answers to conversations that end with a question.
        skills: the skills to evaluate; all by default.
        per_skill: the number of questions for each skill.
        seed: determines the questions.
        show_wrong: the number of wrong answers to print for each skill.
    """
    result = {}
    for skill in skills or SKILLS:
        right, wrong = 0, 0
        for batch in _batches(draw_questions(skill, per_skill, seed)):
            conversations = [conversation for conversation, _ in batch]
            for (conversation, expected), said in zip(batch, answer_all(conversations), strict=True):
                right += said == expected
                if said != expected and wrong < show_wrong:
                    wrong += 1
                    asked = [part.get("text", "<image>") for part in conversation[-1]["content"]]
                    print(f"  {skill}: {asked} -> {said!r}, right: {expected!r}")
        result[skill] = right / per_skill
    return result


def draw_questions(skill: str, count: int, seed: int = 0) -> Iterator[tuple[Conversation, str]]:
    """Yield conversations that end with a question of a skill, each with the right answer."""
    for question, rng in _draw(skill, count, seed):
        yield _messages(question, rng), question.turns[-1].answer


def draw_answers(skill: str, count: int, seed: int = 0) -> Iterator[str]:
    """Yield the right answers alone, without drawing pictures."""
    return (question.turns[-1].answer for question, _ in _draw(skill, count, seed))


def _draw(skill: str, count: int, seed: int) -> Iterator[tuple[Question, random.Random]]:
    number = list(SKILLS).index(skill)
    for index in range(count):
        rng = split_random("evaluation", seed, number * 1_000_000 + index)
        yield SKILLS[skill](rng), rng


def _batches(questions: Iterator[tuple[Conversation, str]]) -> Iterator[list[tuple[Conversation, str]]]:
    while batch := list(islice(questions, _BATCH)):
        yield batch


def main() -> None:
    """Print the table of skills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=TINY)
    parser.add_argument("--per-skill", type=int, default=500)
    parser.add_argument("--skills", nargs="+", choices=list(SKILLS), default=list(SKILLS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show-wrong", type=int, default=0, metavar="N", help="print N wrong answers of each skill")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    processor = DeepseekVLProcessor.from_pretrained(options.checkpoint)
    model = DeepseekVLForConditionalGeneration.from_pretrained(options.checkpoint).eval()
    table = evaluate(
        partial(answer, model, processor), options.skills, options.per_skill, options.seed, options.show_wrong
    )
    if options.json:
        print(json.dumps(table))
    else:
        for skill, share in table.items():
            print(f"{skill:20} {100 * share:5.1f} %")


if __name__ == "__main__":
    main()

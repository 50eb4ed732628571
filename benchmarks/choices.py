"""`python -m benchmarks.choices`: are answers from a list right, and do their probabilities mean what they say?

Over unseen scenes of the embedded model: the share of right answers by skill beside free answers to the same question;
and over all of them how often an answer of a given probability is right (a reliability table), whose mean distance is
the expected calibration error (Guo et al., "On Calibration of Modern Neural Networks", 2017, ten bins).
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import Result, Row, publish
from benchmarks.skills import to_conversation
from dsvl_cli.engine.constraints import OneOf
from dsvl_cli.engine.conversation import Conversation, Request
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from training.evaluate import MOST_NEW_TOKENS, draw_answers, draw_questions

# Skills whose answers are from a short list; its choices are the answers that the skill has over many scenes.
CLOSED = ("colour of 1", "kind of 1", "presence of 1-3", "background of 1-3", "count", "place of 1", "which of two")
_DRAWN = 400  # questions from which the choices are collected
_MOST_CHOICES = 40
_BINS = 10


def expected_calibration_error(found: Sequence[tuple[float, bool]], bins: int = _BINS) -> float:
    """Return the mean distance of probability and share of right answers, weighted by the answers in each bin."""
    parts = _split(found, bins).values()
    return sum(len(part) * abs(_mean_chance(part) - _share(part)) for part in parts) / len(found)


def _split(found: Sequence[tuple[float, bool]], bins: int) -> dict[int, list[tuple[float, bool]]]:
    """Return the answers of each bin that has any, lowest first."""
    parts: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for chance, right in found:
        parts[min(int(chance * bins), bins - 1)].append((chance, right))
    return {number: parts[number] for number in sorted(parts)}


def _describe(number: int, count: int) -> str:
    """Say which bin it is: the last one includes a probability of 1."""
    answers = "1 answer" if count == 1 else f"{count} answers"
    return f"bin {number / _BINS:g}-{(number + 1) / _BINS:g}, {answers}, right"


def _mean_chance(part: Sequence[tuple[float, bool]]) -> float:
    return sum(chance for chance, _ in part) / len(part)


def _share(part: Sequence[tuple[float, bool]]) -> float:
    return sum(right for _, right in part) / len(part)


def ask(model: VisionLanguageModel, talks: Sequence[Conversation], sampling: SamplingParams) -> list[tuple[str, float]]:
    """Return the answer to each, with its probability; 1.0 for a free one."""
    answers: dict[int, tuple[str, float]] = {}
    for outcome in model.answer_all([Request(i, talk, sampling) for i, talk in enumerate(talks)], 16):
        if outcome.reply is None:
            raise SystemExit(str(outcome.error))
        reply = outcome.reply
        chances = reply.probabilities or {}
        answers[int(str(outcome.key))] = (reply.text.strip(), chances.get(reply.text, 1.0))
    return [answers[i] for i in range(len(talks))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--scenes", type=int, default=500, help="in all, shared among the skills")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the section into this file, as RESULTS.md")
    args = parser.parse_args()
    model = load_model(LoadOptions(args.model, device="cpu", dtype="float32"))
    per_skill = -(-args.scenes // len(CLOSED))
    found: list[tuple[float, bool]] = []
    rows: list[Row] = []
    for skill in CLOSED:
        drawn = list(draw_questions(skill, per_skill, seed=0))
        common = Counter(draw_answers(skill, _DRAWN, seed=1)).most_common(_MOST_CHOICES)
        answers = sorted({answer for answer, _ in common} | {answer for _, answer in drawn})
        talks, right = [to_conversation(messages) for messages, _ in drawn], [answer for _, answer in drawn]
        free = ask(model, talks, SamplingParams(MOST_NEW_TOKENS))
        chosen = ask(model, talks, SamplingParams(constraint=OneOf(tuple(answers))))
        results = [(chance, text == truth) for (text, chance), truth in zip(chosen, right, strict=True)]
        found += results
        share = sum(text == truth for (text, _), truth in zip(free, right, strict=True)) / len(right)
        rows.append(Row(f"{skill}, one of {len(answers)}", 100 * _share(results), "%", "free answers", 100 * share))
    rows.append(Row("expected calibration error", 100 * expected_calibration_error(found), "%"))
    rows += [
        Row(_describe(number, len(part)), 100 * _share(part), "%", "mean probability", 100 * _mean_chance(part))
        for number, part in _split(found, _BINS).items()
    ]
    notes = [
        f"{len(found)} scenes with {args.model} in float32",
        f"the choices are the answers that a skill has over {_DRAWN} other scenes and over these",
        "a bin holds the answers whose probability is in its range",
    ]
    publish(Result("choices", "Answers from a list, and their probabilities", rows, notes), args.results)


if __name__ == "__main__":
    main()

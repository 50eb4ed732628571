"""`python -m benchmarks.agreement`: how often a format gives the same greedy answer as float32, alone and in batches.

In float32 our decoding loop and transformers agree on every token, which tests verify. bfloat16 rounds differently for
every matrix shape, and quantized formats deviate slightly, so this measures the agreement rate: over random scenes with
the embedded model, alone and in batches of eight.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch

from benchmarks.formats import is_known, load_options
from benchmarks.results import Result, Row, publish
from dsvl_cli.engine.conversation import Conversation, Reply
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.errors import DsvlError
from tests.engine.test_parity import generate_reference, process, processor_of, random_conversation

GREEDY = SamplingParams(max_new_tokens=48)

Answers = list[tuple[int, ...]]


def alone(model: VisionLanguageModel, talks: list[Conversation]) -> Answers:
    """Answer one by one, and return the ids of each answer."""
    return [Reply.of(model.stream(talk, GREEDY)).token_ids for talk in talks]


def batched(model: VisionLanguageModel, talks: list[Conversation], size: int = 8) -> Answers:
    """Answer in batches, and return the ids of each answer."""
    answers: Answers = []
    for start in range(0, len(talks), size):
        rows = talks[start : start + size]
        chunks = list(model.stream_batch(rows, GREEDY))
        answers += [Reply.of(chunk for i, chunk in chunks if i == row).token_ids for row in range(len(rows))]
    return answers


def generated(model: VisionLanguageModel, talks: list[Conversation]) -> Answers:
    """Answer with `generate` of transformers in bfloat16."""
    processor = processor_of(model)
    return [generate_reference(model, cast(process(processor, talk)), GREEDY.max_new_tokens) for talk in talks]


def cast(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cast the pixels to bfloat16, as the documentation of transformers does."""
    return {name: values.bfloat16() if values.is_floating_point() else values for name, values in inputs.items()}


def compare(what: str, ours: Answers, beside: str, others: Answers) -> Row:
    """Return the percentage of identical answers."""
    same = sum(a == b for a, b in zip(ours, others, strict=True))
    return Row(what, 100 * same / len(ours), "%", beside)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--formats", nargs="+", default=["bf16", "int8", "int4"])
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the section into this file, as RESULTS.md")
    args = parser.parse_args()
    rng = random.Random(7)
    talks = [random_conversation(rng) for _ in range(args.conversations)]
    exact = alone(load_model(load_options(args.model, "fp32", args.threads)), talks)
    rows, notes = [], [f"{len(talks)} conversations with {args.model}; the same means every token of the answer"]
    for name in args.formats:
        if not is_known(name):
            notes.append(f"dsvl has no format {name} yet: skipped")
            continue
        try:
            model = load_model(load_options(args.model, name, args.threads))
        except DsvlError as error:
            notes.append(f"{name}: {error.message}")
            continue
        ours, what = alone(model, talks), f"the same answers, {name}"
        rows.append(compare(what, ours, "fp32", exact))
        rows.append(compare(what, ours, f"{name} in batches of eight", batched(model, talks)))
        if name == "bf16":
            rows.append(compare(what, ours, "generate of transformers, bf16", generated(model, talks)))
    publish(Result("agreement", "Agreement of formats", rows, notes), args.results)


if __name__ == "__main__":
    main()

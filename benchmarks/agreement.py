"""`python -m benchmarks.agreement`: how often bfloat16 gives the same greedy answer as `generate` and as float32.

In float32 our loop and transformers agree on every token, and tests hold it. bfloat16 rounds differently for every
shape of a product, so here it is a rate: over drawn scenes with the embedded model, alone and in batches of eight.
"""

from __future__ import annotations

import argparse
import json
import random

import torch

from dsvl_cli.engine.conversation import Conversation, Reply
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from tests.engine.test_parity import generate_reference, process, processor_of, random_conversation

GREEDY = SamplingParams(max_new_tokens=48)


def batched(model: VisionLanguageModel, talks: list[Conversation], size: int = 8) -> list[tuple[int, ...]]:
    """Answer in batches; the ids of each answer."""
    answers: list[tuple[int, ...]] = []
    for start in range(0, len(talks), size):
        rows = talks[start : start + size]
        chunks = list(model.stream_batch(rows, GREEDY))
        answers += [Reply.of(chunk for i, chunk in chunks if i == row).token_ids for row in range(len(rows))]
    return answers


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--conversations", type=int, default=200)
    args = parser.parse_args()
    rng = random.Random(7)
    talks = [random_conversation(rng) for _ in range(args.conversations)]
    full, half = (load_model(LoadOptions(args.model, dtype=dtype, device="cpu")) for dtype in ("float32", "bfloat16"))
    processor = processor_of(half)
    ours = [Reply.of(half.stream(talk, GREEDY)).token_ids for talk in talks]
    candidates = {
        "float32, alone": [Reply.of(full.stream(talk, GREEDY)).token_ids for talk in talks],
        "bfloat16, generate of transformers": [
            generate_reference(half, cast(process(processor, talk)), GREEDY.max_new_tokens) for talk in talks
        ],
        "bfloat16, in batches of eight": batched(half, talks),
    }
    rates = {name: sum(a == b for a, b in zip(ours, ids, strict=True)) / len(talks) for name, ids in candidates.items()}
    print(
        f"greedy answers of {args.model} in bfloat16, alone, over {len(talks)} conversations, that are the same as in\n"
    )
    for name, rate in rates.items():
        print(f"{name:40} {rate:7.1%}")
    print(json.dumps({"benchmark": "agreement", "conversations": len(talks), "rates": rates}))


def cast(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cast the pixels to bfloat16, as the documentation of transformers does."""
    return {name: values.bfloat16() if values.is_floating_point() else values for name, values in inputs.items()}


if __name__ == "__main__":
    main()

"""`python -m benchmarks.samples CHECKPOINT`: what five samples of a picture cost beside five answers one by one.

Both give the same answers. The samples share one prefill and decode together; each answer alone starts from scratch.
"""

from __future__ import annotations

import argparse
import statistics
import time

from benchmarks.formats import load_options
from benchmarks.results import Result, Row, publish
from benchmarks.setup import Setup, add_options
from dsvl_cli.engine.conversation import Conversation, Message, Reply
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import DEFAULT_PROMPT, SamplingParams
from dsvl_cli.engine.pictures.images import read_picture
from dsvl_cli.engine.samples import list_samplings


def ask(image: str) -> Conversation:
    """Ask about a picture, which is read from its file each time."""
    return Conversation([Message("user", (read_picture(image), DEFAULT_PROMPT))])


def time_samples(model: VisionLanguageModel, image: str, samplings: list[SamplingParams]) -> tuple[float, float]:
    """Return the seconds of all samples together, and of their prefill."""
    model.forget()
    start = time.perf_counter()
    last = dict(model.stream_samples(ask(image), samplings))  # the last chunk of each has its statistics
    seconds = time.perf_counter() - start
    check([chunk.stats.generated_tokens for chunk in last.values() if chunk.stats], samplings)
    stats = last[0].stats
    assert stats is not None
    return seconds, stats.prompt_seconds


def time_answers(model: VisionLanguageModel, image: str, samplings: list[SamplingParams]) -> float:
    """Return the seconds of the same answers, one after the other, as if each were a process of its own."""
    seconds, tokens = 0.0, []
    for sampling in samplings:
        model.forget()
        start = time.perf_counter()
        reply = Reply.of(model.stream(ask(image), sampling))
        seconds += time.perf_counter() - start
        tokens += [reply.stats.generated_tokens] if reply.stats else []
    check(tokens, samplings)
    return seconds


def check(tokens: list[int], samplings: list[SamplingParams]) -> None:
    """Refuse to compare answers of different lengths."""
    if tokens != [sampling.max_new_tokens for sampling in samplings]:
        raise SystemExit("dsvl did not give every answer to the last token")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--new-tokens", type=int, default=33)
    parser.add_argument("--samples", type=int, default=5)
    args = parser.parse_args()
    setup = Setup.from_arguments(args)
    samplings = list_samplings(SamplingParams(args.new_tokens, temperature=0.7, seed=1), args.samples)
    runs: dict[str, list[float]] = {}
    for name in setup.formats:
        model = load_model(load_options(setup.checkpoint, name, setup.threads))
        model.end_ids = frozenset()  # every answer has all its tokens
        time_samples(model, setup.image, samplings[:2] if len(samplings) > 1 else samplings)
        for _ in range(setup.rounds):
            together, prefill = time_samples(model, setup.image, samplings)
            runs.setdefault(f"samples {name}", []).append(together)
            runs.setdefault(f"prefill {name}", []).append(prefill)
            runs.setdefault(f"answers {name}", []).append(time_answers(model, setup.image, samplings))
        del model
    middle = {name: statistics.median(found) for name, found in runs.items()}
    rows = []
    for name in setup.formats:
        rows.append(Row(f"{args.samples} samples of a picture, {name}", middle[f"samples {name}"], "s",
                        "one by one", middle[f"answers {name}"]))  # fmt: skip
        rows.append(Row(f"of it the prefill, {name}", middle[f"prefill {name}"], "s"))
    notes = [f"{setup.threads} threads, {setup.rounds} rounds, {args.new_tokens} new tokens", *setup.skipped_formats]
    publish(Result("samples", "Several answers to one question", rows, notes, runs), setup.results)


if __name__ == "__main__":
    main()

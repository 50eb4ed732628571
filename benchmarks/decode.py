"""`python -m benchmarks.decode CHECKPOINT`: time to first token and milliseconds per decode step, by format.

One picture and one question. Compared with the documented use of transformers in bfloat16, and with llama.cpp with the
same number of prompt tokens and the same bits per weight, but without a picture.
"""

from __future__ import annotations

import argparse

from benchmarks.asking import Asked, ask_all
from benchmarks.formats import llama_kind, width
from benchmarks.limits import Limits, Shape
from benchmarks.results import Goal, Result, Row, publish
from benchmarks.setup import Setup, add_options

# By the bytes of a weight.
FIRST_GOALS = {2.0: Goal("at most", 0.9), 1.0: Goal("at most", 0.6)}
FIRST_LLAMA_GOALS = {1.0: Goal("at most", 0.5)}
STEP_GOALS = {2.0: Goal("at least", 2.5)}
STEP_LLAMA_GOALS = {2.0: Goal("at least", 0.9), 1.0: Goal("at least", 1.0), 0.5: Goal("at least", 1.0)}


def make_rows(asked: Asked, formats: tuple[str, ...], limits: Limits, shape: Shape, new_tokens: int) -> list[Row]:
    """Compare each of our formats with both peers."""
    rows = []
    for name in formats:
        first, bytes_each, peer = asked.first(f"dsvl {name}"), width(name), f"llama.cpp {llama_kind(name)}"
        assert first is not None
        what, limit = f"first token, {name}", shape.prefill_seconds(limits, name, asked.prompt_tokens)
        goal = FIRST_GOALS.get(bytes_each)
        rows += [Row(what, first, "s", other, asked.first(other), goal, limit) for other in asked.transformers]
        rows += [
            Row(what, first, "s", f"{peer}, no picture", asked.first(peer), FIRST_LLAMA_GOALS.get(bytes_each), limit),
        ]
    for name in formats:
        step, bytes_each, peer = asked.step(f"dsvl {name}"), width(name), f"llama.cpp {llama_kind(name)}"
        assert step is not None
        what = f"decode step, {name}"
        limit = 1e3 * shape.step_bytes(name, asked.prompt_tokens + new_tokens // 2) / limits.bandwidth
        goal = STEP_GOALS.get(bytes_each)
        rows += [Row(what, step, "ms", other, asked.step(other), goal, limit) for other in asked.transformers]
        rows += [
            Row(what, step, "ms", peer, asked.step(peer), STEP_LLAMA_GOALS.get(bytes_each), limit),
        ]
    return [row for row in rows if row.reference is not None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--new-tokens", type=int, default=33)
    args = parser.parse_args()
    setup = Setup.from_arguments(args)
    limits, shape, told = setup.measure_limits()
    asked = ask_all(setup, args.new_tokens)
    notes = [
        told,
        f"{asked.prompt_tokens} prompt tokens, a picture's among them, {args.new_tokens} new; {setup.rounds} rounds",
        f"encoding the picture takes {asked.picture():.2f} s of the first token",
        *setup.skipped,
    ]
    rows = make_rows(asked, setup.formats, limits, shape, args.new_tokens)
    publish(Result("decode", "First token and decode step", rows, notes, asked.raw()), setup.results)


if __name__ == "__main__":
    main()

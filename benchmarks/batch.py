"""`python -m benchmarks.batch CHECKPOINT`: pictures per minute in batches of 16, compared with a transformers loop.

All pictures differ and the question is the same. The loop processes fewer pictures, since each costs the same.
"""

from __future__ import annotations

import argparse

from benchmarks.asking import DOCUMENTED
from benchmarks.cpu import detect_kind
from benchmarks.formats import width
from benchmarks.goals import Goals, goals_for
from benchmarks.limits import Limits, Shape
from benchmarks.results import Result, Row, publish
from benchmarks.setup import Figures, Setup, add_options, median_of


def rate(runs: list[Figures]) -> float:
    """Return the median of pictures per minute."""
    return median_of(({"rate": 60 * run["pictures"] / run["seconds"]} for run in runs), "rate")


def make_rows(
    runs: dict[str, list[Figures]],
    formats: tuple[str, ...],
    limits: Limits,
    shape: Shape,
    new_tokens: int,
    goals: Goals,
) -> list[Row]:
    """Compare each format with the loop."""
    rows = []
    for name in formats:
        ours = runs[f"dsvl {name}"]
        limit = shape.batch_rate(limits, name, ours[-1]["prompt_tokens"], new_tokens, ours[-1]["pictures"])
        for other in (name for name in runs if name.startswith("transformers")):
            goal = goals.batch.get(width(name)) if other == DOCUMENTED else None
            what = f"pictures of {new_tokens} tokens, {name}"
            rows.append(Row(what, rate(ours), "/min", f"loop, {other}", rate(runs[other]), goal, limit))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, rounds=1, formats=("bf16", "int8"))
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=16, help="in one batch")
    parser.add_argument("--loop", type=int, default=3, help="pictures of the loop")
    args = parser.parse_args()
    setup = Setup.from_arguments(args)
    limits, shape, measured = setup.measure_limits()
    new_tokens = ("--new-tokens", str(args.new_tokens))
    runs: dict[str, list[Figures]] = {}
    for _ in range(setup.rounds):
        for dtype in setup.transformers:
            found = setup.baseline("batch", dtype, *new_tokens, "--pictures", str(args.loop))
            runs.setdefault(f"transformers {dtype}", []).extend(found["runs"])
        for name in setup.formats:
            found = setup.ours("batch", name, *new_tokens, "--pictures", str(args.pictures))
            runs.setdefault(f"dsvl {name}", []).extend(found["runs"])
    notes = [
        measured,
        f"{args.pictures} in a batch, {args.loop} in the loop; rounds: {setup.rounds}",
        *setup.skipped_formats,
    ]
    rows = make_rows(runs, setup.formats, limits, shape, args.new_tokens, goals_for(detect_kind()))
    publish(Result("batch", "Many pictures", rows, notes, runs), setup.results)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.context CHECKPOINT`: the cost of a decode step with a context of 600 and of 8,000 tokens.

The time to read the longer cache at the measured bandwidth is subtracted: the remainder should hardly depend on the
context. The caches of dsvl and transformers are filled with random numbers. `--no-peers` skips transformers and
llama.cpp.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from typing import Any

from benchmarks.formats import llama_kind
from benchmarks.limits import Limits, Shape
from benchmarks.results import Goal, Result, Row, publish
from benchmarks.setup import Figures, Setup, add_options, median_of

GOAL = Goal("at most", 1.5)


def steps_by_context(runs: list[Figures], contexts: list[int]) -> list[tuple[float, float]]:
    """Return the actual length and the median milliseconds of a step for each context."""
    found = []
    for wanted in contexts:
        near = [run for run in runs if wanted == min(contexts, key=lambda each: abs(each - run["prompt_tokens"]))]
        found.append((median_of(near, "prompt_tokens"), 1e3 * median_of(near, "median_step_seconds")))
    return found


def make_rows(runs: dict[str, list[Figures]], contexts: list[int], limits: Limits, shape: Shape) -> list[Row]:
    """Compare each longer context with the shortest, and each step with its limit."""
    rows = []
    for name, found in runs.items():
        steps = steps_by_context(found, contexts)
        is_ours = name.startswith("dsvl")
        for tokens, step in steps:
            format_name = name.split()[1]
            limit = 1e3 * shape.step_bytes(format_name, int(tokens)) / limits.bandwidth if is_ours else None
            rows.append(Row(f"decode step behind {tokens:,.0f} tokens, {name}", step, "ms", limit=limit))
        for (few, short), (many, long) in pairwise(steps):
            reading = 1e3 * shape.cache_bytes(_width_of_cache(name), int(many - few)) / limits.bandwidth
            what = f"the same behind {many:,.0f}, without reading its cache, {name}"
            rows.append(
                Row(what, max(long - reading, 0.0), "ms", f"behind {few:,.0f}", short, GOAL if is_ours else None)
            )
    return rows


def _width_of_cache(candidate: str) -> str:
    """Return the format of a candidate's cache; llama.cpp uses 16 bits."""
    return "fp32" if candidate.endswith("fp32") else "bf16"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, rounds=1, repeats=2, formats=("bf16", "int8"))
    parser.add_argument("--contexts", type=int, nargs="+", default=[600, 8000])
    parser.add_argument("--new-tokens", type=int, default=17)
    parser.add_argument("--no-peers", action="store_true", help="llama.cpp needs minutes for a long prompt")
    args = parser.parse_args()
    setup = Setup.from_arguments(args)
    limits, shape, told = setup.measure_limits()
    counts = ("--new-tokens", str(args.new_tokens), "--contexts", *map(str, args.contexts))
    runs = dict[str, Any]()
    for _ in range(setup.rounds):
        for name in setup.formats:
            runs.setdefault(f"dsvl {name}", []).extend(setup.ours("context", name, *counts)["runs"])
        if args.no_peers:
            continue
        for dtype in setup.transformers:
            runs.setdefault(f"transformers {dtype}", []).extend(setup.baseline("context", dtype, *counts)["runs"])
        if setup.llama is not None:
            kind = llama_kind(setup.formats[-1])
            setup.llama.make([kind])
            for tokens in args.contexts:
                for run in setup.llama.ask(kind, tokens, args.new_tokens, 1)["runs"]:
                    step = (run["seconds"] - run["first_seconds"]) / (args.new_tokens - 1)
                    runs.setdefault(f"llama.cpp {kind}", []).append({**run, "median_step_seconds": step})
    skipped = setup.skipped if not args.no_peers else (*setup.skipped_formats, "peers were left out")
    notes = [told, f"{setup.rounds} rounds, {args.new_tokens - 1} steps each", *skipped]
    publish(
        Result("context", "Cost over context", make_rows(runs, args.contexts, limits, shape), notes, runs),
        setup.results,
    )


if __name__ == "__main__":
    main()

"""`python -m benchmarks.memory CHECKPOINT`: anonymous memory and loading time beyond the imports. Linux only.

Each format is loaded and answers a question in a new process. Memory is Linux's RssAnon, sampled every 5 ms, which
excludes memory-mapped weights. The first start, which may store a quantized copy, is reported separately.
"""

from __future__ import annotations

import argparse

from benchmarks.describe import read_weights
from benchmarks.formats import UNQUANTIZED
from benchmarks.limits import Shape
from benchmarks.results import Goal, Result, Row, publish
from benchmarks.setup import Figures, Setup, add_options, median_of

MEMORY_GOAL, LOAD_GOAL = Goal("at most", 1.1), Goal("under", 1.0)


def answering_bytes(found: Figures) -> float:
    """Return the peak anonymous bytes beyond the imports, while loading or answering."""
    return float(max(found["load_peak_bytes"], found["answer_peak_bytes"] - found["before_bytes"]))


def make_rows(runs: dict[str, list[Figures]], formats: tuple[str, ...], shape: Shape) -> list[Row]:
    """Compare each format with its weights and cache, and its loading with the goal and with transformers."""
    rows = []
    others = [name for name in runs if name.startswith("transformers")]
    for name in formats:
        found = runs[f"dsvl {name}"]
        answer = found[0]["runs"][0]
        least = shape.weight_bytes(name) + shape.cache_bytes(name, answer["prompt_tokens"] + answer["new_tokens"])
        peak = median_of(({"bytes": answering_bytes(run)} for run in found), "bytes")
        what = f"most anonymous memory, {name}"
        rows.append(Row(what, peak / 1e9, "GB", "weights and cache", least / 1e9, MEMORY_GOAL, least / 1e9))
        for other in others:
            theirs = median_of(({"bytes": answering_bytes(run)} for run in runs[other]), "bytes")
            rows.append(Row(what, peak / 1e9, "GB", other, theirs / 1e9))
    for name in formats:
        load = median_of(runs[f"dsvl {name}"], "load_seconds")
        rows.append(Row(f"load, {name}", load, "s", goal=LOAD_GOAL))
        rows += [Row(f"load, {name}", load, "s", other, median_of(runs[other], "load_seconds")) for other in others]
        if name not in UNQUANTIZED:
            rows.append(Row(f"load, {name}, in a first start", median_of(runs[f"first {name}"], "load_seconds"), "s"))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--new-tokens", type=int, default=8)
    args = parser.parse_args()
    setup = Setup.from_arguments(args)
    new_tokens = ("--new-tokens", str(args.new_tokens))
    runs: dict[str, list[Figures]] = {}
    for name in setup.formats:
        if name not in UNQUANTIZED:
            read_weights(setup.checkpoint)
            runs[f"first {name}"] = [setup.ours("memory", name, *new_tokens)]
    for _ in range(setup.rounds):
        read_weights(setup.checkpoint)
        for dtype in setup.transformers:
            runs.setdefault(f"transformers {dtype}", []).append(setup.baseline("memory", dtype, *new_tokens))
        for name in setup.formats:
            read_weights(setup.checkpoint)
            runs.setdefault(f"dsvl {name}", []).append(setup.ours("memory", name, *new_tokens))
    notes = [
        "weights and cache are what the format needs by its width, scales left out; towers in 16 bits, fp32 in 32",
        f"{setup.threads} threads, {setup.rounds} rounds, warm page cache; a first start may find an earlier copy",
        *setup.skipped_formats,
    ]
    rows = make_rows(runs, setup.formats, Shape.read(setup.checkpoint))
    publish(Result("memory", "Memory and loading", rows, notes, runs), setup.results)


if __name__ == "__main__":
    main()

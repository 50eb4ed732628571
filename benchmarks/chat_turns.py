"""`python -m benchmarks.chat_turns CHECKPOINT`: time to first token in the first and second turn of a chat.

Compared with the documented use of transformers, `apply_chat_template` and `generate` over the whole conversation of
the same length.
"""

from __future__ import annotations

import argparse

from benchmarks.asking import DOCUMENTED
from benchmarks.cpu import detect_kind
from benchmarks.goals import Goals, goals_for
from benchmarks.limits import Limits, Shape
from benchmarks.results import Result, Row, publish
from benchmarks.setup import Figures, Setup, add_options, median_of


def make_rows(
    runs: dict[str, list[Figures]], formats: tuple[str, ...], goals: Goals, limits: Limits, shape: Shape
) -> list[Row]:
    """Compare both turns of every format with transformers."""
    rows = []
    for turn in ("first", "second"):
        for name in formats:
            last = runs[f"dsvl {name}"][-1]
            first_tokens, tokens = last["prompt_tokens"], last["second_prompt_tokens"]
            limit = (
                shape.prefill_seconds(limits, name, first_tokens)
                if turn == "first"
                else shape.turn_seconds(limits, name, first_tokens, tokens - first_tokens)
            )
            value = median_of(runs[f"dsvl {name}"], f"{turn}_seconds")
            for other in (name for name in runs if name.startswith("transformers")):
                theirs = median_of(runs[other], f"{turn}_seconds")
                goal = goals.second_turn if turn == "second" and other == DOCUMENTED else None
                rows.append(Row(f"first token, {turn} turn, {name}", value, "s", other, theirs, goal, limit))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    setup = Setup.from_arguments(parser.parse_args())
    limits, shape, measured = setup.measure_limits()
    runs: dict[str, list[Figures]] = {}
    for _ in range(setup.rounds):
        for dtype in setup.transformers:
            runs.setdefault(f"transformers {dtype}", []).extend(setup.baseline("turns", dtype)["runs"])
        for name in setup.formats:
            runs.setdefault(f"dsvl {name}", []).extend(setup.ours("turns", name)["runs"])
    lengths = {(run["prompt_tokens"], run["second_prompt_tokens"]) for found in runs.values() for run in found}
    told = " or ".join(f"{first} and {second}" for first, second in sorted(lengths))
    notes = [measured, f"{told} prompt tokens; {setup.rounds} rounds", *setup.skipped_formats]
    rows = make_rows(runs, setup.formats, goals_for(detect_kind()), limits, shape)
    publish(Result("chat_turns", "Turns of a chat", rows, notes, runs), setup.results)


if __name__ == "__main__":
    main()

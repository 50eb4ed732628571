"""`python -m benchmarks.decode CHECKPOINT`: time to first token and milliseconds per decode step, by format.

One picture and one question. Compared with the documented use of transformers in bfloat16, and with llama.cpp and
OpenVINO with the same number of prompt tokens and the same bits per weight, but without a picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from benchmarks.asking import DOCUMENTED, Asked, ask_all
from benchmarks.cpu import detect_kind
from benchmarks.formats import llama_kind, openvino_kind, width
from benchmarks.goals import EVENNESS, Goals, goals_for
from benchmarks.limits import Limits, Shape
from benchmarks.results import Result, Row, Unit, publish
from benchmarks.setup import Setup, add_options


def make_rows(
    asked: Asked, formats: tuple[str, ...], limits: Limits, shape: Shape, new_tokens: int, goals: Goals
) -> list[Row]:
    """Compare each of our formats with both peers, and the slowest with the fastest."""
    rows = []
    firsts, steps = dict[str, float](), dict[str, float]()
    for name in formats:
        first, bytes_each, peer = asked.first(f"dsvl {name}"), width(name), f"llama.cpp {llama_kind(name)}"
        assert first is not None
        what, limit = f"first token, {name}", shape.prefill_seconds(limits, name, asked.prompt_tokens)
        firsts[name] = first
        for other in asked.transformers:
            goal = goals.first.get(bytes_each) if other == DOCUMENTED else None
            rows.append(Row(what, first, "s", other, asked.first(other), goal, limit))
        goal = goals.first_llama.get(bytes_each)
        rows.append(Row(what, first, "s", f"{peer}, no picture", asked.first(peer), goal, limit))
        peer = f"OpenVINO {openvino_kind(name)}"
        rows.append(Row(what, first, "s", f"{peer}, no picture", asked.first(peer), None, limit))
    for name in formats:
        step, bytes_each, peer = asked.step(f"dsvl {name}"), width(name), f"llama.cpp {llama_kind(name)}"
        assert step is not None
        what = f"decode step, {name}"
        limit = 1e3 * shape.step_bytes(name, asked.prompt_tokens + new_tokens // 2) / limits.bandwidth
        steps[name] = step
        rows += [Row(what, step, "ms", other, asked.step(other), None, limit) for other in asked.transformers]
        rows.append(Row(what, step, "ms", peer, asked.step(peer), goals.step_llama.get(bytes_each), limit))
        peer = f"OpenVINO {openvino_kind(name)}"
        rows.append(Row(what, step, "ms", peer, asked.step(peer), None, limit))
    if len(formats) > 1:
        rows += [compare_formats("first token", firsts, "s"), compare_formats("decode step", steps, "ms")]
    return [row for row in rows if row.reference is not None]


def compare_formats(what: str, values: Mapping[str, float], unit: Unit) -> Row:
    """Compare the slowest format with the fastest."""
    slowest, fastest = (choose(values, key=lambda name: values[name]) for choose in (max, min))
    beside = f"dsvl {fastest}, the fastest"
    return Row(f"{what}, {slowest}, the slowest", values[slowest], unit, beside, values[fastest], EVENNESS)


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
    rows = make_rows(asked, setup.formats, limits, shape, args.new_tokens, goals_for(detect_kind()))
    publish(Result("decode", "First token and decode step", rows, notes, asked.raw()), setup.results)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.constrained CHECKPOINT`: what a list of choices and a schema cost beside a free answer.

A picture with eight choices, compared with its prefill alone; a decode step under a schema, compared with one without.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise

from benchmarks.formats import load_options
from benchmarks.results import Goal, Result, Row, publish
from benchmarks.setup import Setup, add_options
from dsvl_cli.engine.constraints import Constraint, JsonSchema, OneOf
from dsvl_cli.engine.conversation import Conversation, Message, Stats
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.pictures.images import read_picture

CHOICES = OneOf(("red", "green", "blue", "dark red", "dark green", "red and green", "something else", "nothing"))
# A text that is long enough for every step to be inside of it.
SCHEMA = JsonSchema.of(
    {"type": "object", "properties": {"text": {"type": "string", "minLength": 4000}}, "required": ["text"]}
)
_TURNS = 4
PICTURE_GOAL, STEP_GOAL = Goal("at most", 1.15), Goal("at most", 1.05)


def answer(
    model: VisionLanguageModel, image: str, constraint: Constraint | None, tokens: int, *, from_scratch: bool = True
) -> tuple[Stats, list[float]]:
    """Answer, as if nothing were cached if so; return the statistics and the seconds of each step."""
    if from_scratch:
        model.forget()
    talk = Conversation([Message("user", (read_picture(image), "Describe this image."))])
    sampling = SamplingParams(tokens, temperature=1.0, seed=1, constraint=constraint)
    times, last = [], None
    for chunk in model.stream(talk, sampling):
        times.append(time.perf_counter())
        last = chunk.stats
    assert last is not None
    return last, [later - earlier for earlier, later in pairwise(times)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--new-tokens", type=int, default=33)
    args = parser.parse_args()
    setup = Setup.from_arguments(args)
    runs: dict[str, list[float]] = {}
    for name in setup.formats:
        model = load_model(load_options(setup.checkpoint, name, setup.threads))
        for constraint in (None, SCHEMA, CHOICES):  # what is compiled or chosen at the first use is not measured
            answer(model, setup.image, constraint, 2)
        for _ in range(setup.rounds):
            free, _ = answer(model, setup.image, None, 1)
            chosen, _ = answer(model, setup.image, CHOICES, 1)
            steps, masked = list[float](), list[float]()
            for _ in range(_TURNS):  # by turns, since the machine is faster at one time than at another
                for constraint, times in ((None, steps), (SCHEMA, masked)):
                    times += answer(model, setup.image, constraint, args.new_tokens, from_scratch=False)[1]
            runs.setdefault(f"prefill {name}", []).append(free.prompt_seconds)
            runs.setdefault(f"choices {name}", []).append(chosen.prompt_seconds + chosen.generate_seconds)
            runs.setdefault(f"scoring {name}", []).append(chosen.generate_seconds)
            runs.setdefault(f"step {name}", []).append(1e3 * statistics.median(steps))
            runs.setdefault(f"masked {name}", []).append(1e3 * statistics.median(masked))
        del model
    middle = {name: statistics.median(found) for name, found in runs.items()}
    rows = []
    for name in setup.formats:
        rows.append(Row(f"a picture with 8 choices, {name}", middle[f"choices {name}"], "s", "its prefill",
                        middle[f"prefill {name}"], PICTURE_GOAL))  # fmt: skip
        rows.append(Row(f"of it scoring, {name}", middle[f"scoring {name}"], "s"))
        rows.append(Row(f"decode step under a schema, {name}", middle[f"masked {name}"], "ms", "free, sampled",
                        middle[f"step {name}"], STEP_GOAL))  # fmt: skip
    notes = [f"{setup.threads} threads, {setup.rounds} rounds, {args.new_tokens} new tokens", *setup.skipped_formats]
    publish(Result("constrained", "Answers from a list and under a schema", rows, notes, runs), setup.results)


if __name__ == "__main__":
    main()

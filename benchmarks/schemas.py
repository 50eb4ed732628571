"""`python -m benchmarks.schemas`: how many answers are valid under their schema.

Over fifty schemas and scenes of the embedded model; `jsonschema` checks every answer. One that was cut at the limit is
no answer: dsvl says so, and it is counted apart.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import cast

import jsonschema

from benchmarks.results import Goal, Result, Row, publish
from benchmarks.schema_examples import SCHEMAS
from benchmarks.skills import to_picture
from dsvl_cli.engine.conversation import Conversation, Message, Request
from dsvl_cli.engine.model import load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.schemas import check_schema
from training.scenes import draw_scene, sample_scene

QUESTION = "What is in the picture?"
MOST_NEW_TOKENS = 400


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the section into this file, as RESULTS.md")
    args = parser.parse_args()
    model = load_model(LoadOptions(args.model, device="cpu", dtype="float32"))
    rng = random.Random(16)
    pictures = [to_picture(draw_scene(sample_scene(rng, rng.randint(1, 3)), 384)) for _ in range(args.pictures)]
    schemas = [check_schema(schema) for schema in SCHEMAS]
    rows, notes = [], [f"{len(schemas)} schemas, {len(pictures)} pictures, at most {MOST_NEW_TOKENS} tokens"]
    for temperature in (0.0, 1.0):
        requests = [
            Request(
                (number, i),
                Conversation([Message("user", (picture, QUESTION))]),
                SamplingParams(MOST_NEW_TOKENS, temperature, seed=number * 1000 + i, constraint=schema),
            )
            for i, picture in enumerate(pictures)
            for number, schema in enumerate(schemas)
        ]
        valid = cut = 0
        for outcome in model.answer_all(requests, 16):
            number, _ = cast("tuple[int, int]", outcome.key)
            reply = outcome.reply
            if reply is None:
                raise SystemExit(f"{SCHEMAS[number]}: {outcome.error}")
            if reply.finish_reason == "length":
                cut += 1
                continue
            try:
                jsonschema.validate(json.loads(reply.text), SCHEMAS[number])
            except (ValueError, jsonschema.ValidationError) as error:
                notes.append(f"{SCHEMAS[number]}: {str(error).splitlines()[0]}: {reply.text}")
                continue
            valid += 1
        ended = max(1, len(requests) - cut)
        what, share = f"valid answers at temperature {temperature:g}", 100 * valid / ended
        rows.append(Row(what, share, "%", "all that ended", 100.0, Goal("at least", 1.0)))
        rows.append(Row("of all answers, cut at the limit", 100 * cut / len(requests), "%"))
    publish(Result("schemas", "Answers under a schema", rows, notes), args.results)


if __name__ == "__main__":
    main()

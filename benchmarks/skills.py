"""The embedded model's skills table, measured through dsvl: unquantized or quantized, in any dtype.

python -m benchmarks.skills [CHECKPOINT] [--dtype auto] [--quantization FORMAT] [--per-skill 500] [--skills NAME ...]

Asks the same questions as `python -m training.evaluate`, which uses transformers.
"""

from __future__ import annotations

import argparse
import io
import json
from typing import Any

from PIL import Image

from dsvl_cli.engine.conversation import Conversation, Message, Part, Picture, Reply
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.pictures.images import picture_from_bytes
from training.evaluate import MOST_NEW_TOKENS, SKILLS, evaluate

_GREEDY = SamplingParams(max_new_tokens=MOST_NEW_TOKENS)


def answer_with(model: VisionLanguageModel, conversations: list[list[dict[str, Any]]]) -> list[str]:
    """Answer conversations in the format of transformers with dsvl, greedily, as one batch."""
    talks = [to_conversation(messages) for messages in conversations]
    chunks = list(model.stream_batch(talks, _GREEDY))
    return [Reply.of(chunk for row, chunk in chunks if row == index).text.strip() for index in range(len(talks))]


def to_conversation(messages: list[dict[str, Any]]) -> Conversation:
    """Convert a conversation from the format of transformers."""
    return Conversation([_to_message(message) for message in messages])


def _to_message(message: dict[str, Any]) -> Message:
    parts: tuple[Part, ...] = tuple(
        part["text"] if part["type"] == "text" else to_picture(part["image"]) for part in message["content"]
    )
    return Message(message["role"], parts)


def to_picture(image: Image.Image) -> Picture:
    """Convert a drawn picture."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return picture_from_bytes(buffer.getvalue(), "drawn")


def measure_skills(options: LoadOptions, skills: list[str], per_skill: int, seed: int = 0) -> dict[str, float]:
    """Load a model and return its share of exact answers (0 to 1) by skill."""
    model = load_model(options)
    return evaluate(lambda conversations: answer_with(model, conversations), skills, per_skill, seed)


def main() -> None:
    """Print the table of skills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="tiny")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization")
    parser.add_argument("--per-skill", type=int, default=500)
    parser.add_argument("--skills", nargs="+", choices=list(SKILLS), default=list(SKILLS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    options = LoadOptions(
        args.checkpoint, device="cpu", dtype=args.dtype, quantization=args.quantization, threads=args.threads
    )
    table = measure_skills(options, args.skills, args.per_skill, args.seed)
    if args.json:
        print(json.dumps(table))
        return
    for skill, share in table.items():
        print(f"{skill:20} {100 * share:5.1f} %")
    print(f"{'mean':20} {100 * sum(table.values()) / len(table):5.1f} %")


if __name__ == "__main__":
    main()

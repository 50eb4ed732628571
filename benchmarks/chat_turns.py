"""`python -m benchmarks.chat_turns CHECKPOINT IMAGE`: time to first token in the first and second turn of a chat.

Beside dsvl runs the documented way of transformers, `apply_chat_template` and `generate` over the whole conversation,
in the same process, alternating, over a conversation of the same length.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.timing import alternate, report, timed
from dsvl_cli.engine.conversation import Conversation, Message, Reply
from dsvl_cli.engine.images import read_picture
from dsvl_cli.engine.model import load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams

FIRST, SECOND = "Describe this image.", "What colour is it?"
ANSWER = "The picture shows a red circle on a white ground, a little above the middle, with nothing else around it."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("image")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    ours = load_model(LoadOptions(args.checkpoint, dtype=args.dtype, threads=args.threads, device="cpu", offline=True))
    picture = read_picture(args.image)
    first = Conversation([Message("user", (picture, FIRST))])
    ids = tuple(ours.format.encode(f" {ANSWER}"))
    said = Message("assistant", (ANSWER,), ids, ours.fingerprint, "stop")
    second = Conversation([*first.messages, said, Message("user", (SECOND,))])
    one = SamplingParams(max_new_tokens=1)

    def our_first() -> float:
        ours.forget()
        return timed(lambda: Reply.of(ours.stream(first, one)))

    def our_second() -> float:
        # As after a first turn: the prompt and the answer are in the cache, but for the answer's last token.
        Reply.of(ours.stream(Conversation([*first.messages, said]), one))
        return timed(lambda: Reply.of(ours.stream(second, one)))

    model = AutoModelForImageTextToText.from_pretrained(args.checkpoint, dtype=getattr(torch, args.dtype)).eval()
    processor = AutoProcessor.from_pretrained(args.checkpoint)
    shown = {"type": "image", "image": Image.open(args.image).convert("RGB")}
    user = {"role": "user", "content": [shown, {"type": "text", "text": FIRST}]}
    answered = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    asked = {"role": "user", "content": [{"type": "text", "text": SECOND}]}

    def baseline(messages: list[dict[str, Any]]) -> None:
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(model.device, dtype=model.dtype)
        with torch.inference_mode():
            model.generate(**inputs, max_new_tokens=1, do_sample=False)

    candidates = {
        "transformers, first turn": lambda: timed(lambda: baseline([user])),
        "dsvl, first turn": our_first,
        "transformers, second turn": lambda: timed(lambda: baseline([user, answered, asked])),
        "dsvl, second turn": our_second,
    }
    for run in candidates.values():
        run()
    lengths = f"{ours.count_tokens(first)} and {ours.count_tokens(second)}"
    print(f"{lengths} prompt tokens, {args.dtype}, {args.threads} threads")
    report("chat_turns", alternate(candidates, args.rounds), "transformers, second turn")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.workers.ours MODE CHECKPOINT IMAGE`: one measurement of dsvl; prints one line of JSON.

A benchmark starts it anew for every round, so that candidates never share memory or a process. Clocks start when the
model is loaded and warm; what is imported on the way is imported before the loading is timed.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from itertools import pairwise
from typing import Any

import torch
from PIL import Image, ImageDraw

from benchmarks.anonymous import Peak, read_anonymous
from benchmarks.formats import load_options
from benchmarks.timing import timed
from dsvl_cli.engine.conversation import Conversation, Message, Picture, Reply, Request
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.network.decoder import Segment
from dsvl_cli.engine.network.kv_cache import KVCache
from dsvl_cli.engine.options import DEFAULT_PROMPT, SamplingParams
from dsvl_cli.engine.pictures.images import picture_from_bytes, read_picture
from dsvl_cli.errors import DsvlError

SECOND_QUESTION = "What colour is it?"
ANSWER = "The picture shows a red circle on a white ground, a little above the middle, with nothing else around it."
WARM_UP = "Hello."

Figures = dict[str, Any]


def load(model: str, format_name: str, threads: int) -> tuple[VisionLanguageModel, Figures]:
    """Load a model that ignores its end token, like the peers, with the cost of loading after the imports."""
    try:
        load_model(load_options("tiny", format_name, threads))  # imports everything
    except DsvlError:  # a toy may be too small for a format
        load_model(load_options("tiny", "bf16", threads))
    before = read_anonymous()
    with Peak() as peak:
        start = time.perf_counter()
        loaded = load_model(load_options(model, format_name, threads))
        seconds = time.perf_counter() - start
    loaded.end_ids = frozenset()
    return loaded, {
        "load_seconds": seconds,
        "load_peak_bytes": peak.bytes - before,
        "loaded_bytes": read_anonymous() - before,
        "before_bytes": before,
    }


def answer(model: VisionLanguageModel, conversation: Conversation, new_tokens: int) -> Figures:
    """Answer with an exact number of tokens, and return the seconds until the first and last, and of each step."""
    start = time.perf_counter()
    times, stats = [], None
    for chunk in model.stream(conversation, SamplingParams(max_new_tokens=new_tokens)):
        times.append(time.perf_counter())
        stats = chunk.stats or stats
    if stats is None or stats.generated_tokens != new_tokens:
        raise SystemExit(f"dsvl did not answer with {new_tokens} tokens")
    steps = [after - before for before, after in pairwise(times)]
    return {
        "prompt_tokens": stats.prompt_tokens,
        "new_tokens": new_tokens,
        "first_seconds": times[0] - start,
        "seconds": times[-1] - start,
        "median_step_seconds": statistics.median(steps) if steps else None,
    }


def warm_up(model: VisionLanguageModel) -> None:
    """Give a short answer, so that libraries complete their one-time setup."""
    answer(model, Conversation([Message("user", (WARM_UP,))]), 2)
    model.forget()


def show(image: str, text: str = DEFAULT_PROMPT) -> Conversation:
    """Ask about a picture, which is read from its file each time."""
    return Conversation([Message("user", (read_picture(image), text))])


def measure_ask(model: VisionLanguageModel, args: argparse.Namespace) -> Figures:
    """One picture, one question, and the share of encoding the picture."""

    def ask(new_tokens: int) -> Figures:
        model.forget()
        start = time.perf_counter()
        conversation = show(args.image)
        reading = time.perf_counter() - start
        run = answer(model, conversation, new_tokens)
        return {**run, "first_seconds": run["first_seconds"] + reading, "seconds": run["seconds"] + reading}

    def encode() -> float:
        model.forget()
        return timed(lambda: model.network.features([read_picture(args.image)]))

    warm_up(model)
    return {
        "picture_seconds": encode(),
        "runs": [ask(args.new_tokens) for _ in range(args.repeats)],
    }


def measure_memory(model: VisionLanguageModel, args: argparse.Namespace) -> Figures:
    """Peak anonymous memory while answering a first question."""
    with Peak() as peak:
        run = answer(model, show(args.image), args.new_tokens)
    return {"answer_peak_bytes": peak.bytes, "runs": [run]}


def measure_turns(model: VisionLanguageModel, args: argparse.Namespace) -> Figures:
    """Time to first token in two turns of a chat."""
    first = show(args.image)
    ids = tuple(model.format.encode(f" {ANSWER}"))
    said = Message("assistant", (ANSWER,), ids, model.fingerprint, "stop")
    answered = Conversation([*first.messages, said])
    second = Conversation([*answered.messages, Message("user", (SECOND_QUESTION,))])

    def turn() -> Figures:
        model.forget()
        run = answer(model, first, 1)
        # As after a first turn: the prompt and the answer are in the cache, except the answer's last token.
        Reply.of(model.stream(answered, SamplingParams(max_new_tokens=1)))
        follow = answer(model, second, 1)
        return {
            "prompt_tokens": run["prompt_tokens"],
            "second_prompt_tokens": follow["prompt_tokens"],
            "first_seconds": run["seconds"],
            "second_seconds": follow["seconds"],
        }

    warm_up(model)
    return {"runs": [turn() for _ in range(args.repeats)]}


def draw_pictures(image: str, count: int) -> list[Picture]:
    """Return pictures of one size that differ in a corner."""
    pictures = []
    for index in range(count):
        changed = Image.open(image).convert("RGB")
        ImageDraw.Draw(changed).rectangle((0, 0, 9, 9), fill=(index % 256, 0, 255))
        buffer = io.BytesIO()
        changed.save(buffer, "PNG")
        pictures.append(picture_from_bytes(buffer.getvalue(), f"{index}.png"))
    return pictures


def measure_batch(model: VisionLanguageModel, args: argparse.Namespace) -> Figures:
    """Many pictures and one question, through `answer_all`."""
    sampling = SamplingParams(max_new_tokens=args.new_tokens)

    def answer_pictures(pictures: list[Picture]) -> int:
        tokens = 0
        talks = (Conversation([Message("user", (picture, DEFAULT_PROMPT))]) for picture in pictures)
        requests = [Request(index, talk, sampling) for index, talk in enumerate(talks)]
        for outcome in model.answer_all(requests, batch_size=args.pictures):
            if outcome.reply is None or outcome.reply.finish_reason != "length":
                raise SystemExit("dsvl did not answer every picture to the last token")
            tokens = outcome.reply.stats.prompt_tokens if outcome.reply.stats else tokens
        return tokens

    warm_up(model)
    pictures = draw_pictures(args.image, args.pictures)
    start = time.perf_counter()
    tokens = answer_pictures(pictures)
    seconds = time.perf_counter() - start
    return {"runs": [{"pictures": args.pictures, "prompt_tokens": tokens, "seconds": seconds}]}


def measure_context(model: VisionLanguageModel, args: argparse.Namespace) -> Figures:
    """A decode step after contexts of several lengths; the caches are filled with random numbers, like the peer's."""
    decoder = model.network.decoder
    shape = (2, decoder.config.kv_heads, max(args.contexts), decoder.config.head_dim)
    runs = []
    for tokens in args.contexts:
        cache = KVCache(decoder.config.layers, tokens + args.new_tokens)
        for layer in cache.layers:
            keys, values = torch.randn(shape)[:, :, :tokens].to(decoder.cache_dtype)
            layer.write(0, keys, values, cache.reserve)
        cache.length = tokens

        def step(cache: KVCache = cache) -> None:
            decoder.forward(decoder.embed(torch.tensor([0])), [Segment(cache, 1)])

        step()
        times = [timed(step) for _ in range(args.new_tokens - 1)]
        runs.append({"prompt_tokens": tokens, "median_step_seconds": statistics.median(times)})
    return {"runs": runs}


MODES = {
    "ask": measure_ask,
    "memory": measure_memory,
    "turns": measure_turns,
    "batch": measure_batch,
    "context": measure_context,
}


def main() -> None:
    """Load and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("checkpoint")
    parser.add_argument("image")
    parser.add_argument("--format", default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--contexts", type=int, nargs="+", default=[600, 8000])
    args = parser.parse_args()
    model, loading = load(args.checkpoint, args.format, args.threads)
    print(json.dumps({**loading, **MODES[args.mode](model, args)}))


if __name__ == "__main__":
    main()

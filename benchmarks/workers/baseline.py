"""`python -m benchmarks.workers.baseline MODE CHECKPOINT IMAGE`: transformers the documented way; one line of JSON.

`AutoProcessor.apply_chat_template` and `generate` of `AutoModelForImageTextToText`. Nothing of dsvl is
imported. The modes are those of `benchmarks.workers.ours`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from typing import Any

# An extra of dsvl, which users of transformers need not have; if it is installed, transformers imports it.
sys.modules["torchao"] = None  # type: ignore[assignment]

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForImageTextToText,
    AutoProcessor,
    DeepseekVLForConditionalGeneration,  # noqa: F401  AutoModel would import it while loading
    DynamicCache,
    StoppingCriteria,
)

from benchmarks.anonymous import Peak, read_anonymous  # noqa: E402

FIRST_QUESTION, SECOND_QUESTION = "Describe this image.", "What colour is it?"
ANSWER = "The picture shows a red circle on a white ground, a little above the middle, with nothing else around it."
WARM_UP = "Hello."
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

Figures = dict[str, Any]


class Clock(StoppingCriteria):
    """Records the time of each token; never stops."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Record the time."""
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


class Baseline:
    """The model and its processor."""

    def __init__(self, checkpoint: str, dtype: torch.dtype) -> None:
        self.model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype).eval()
        self.processor: Any = AutoProcessor.from_pretrained(checkpoint)

    def ask(self, messages: list[Figures], new_tokens: int) -> Figures:
        """Answer a conversation with an exact number of tokens; pictures are paths, and are read each time."""
        clock, start = Clock(), time.perf_counter()
        opened = [{**message, "content": [_open(part) for part in message["content"]]} for message in messages]
        inputs = self.processor.apply_chat_template(
            opened, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(self.model.device, dtype=self.model.dtype)
        with torch.inference_mode():
            self.model.generate(
                **inputs,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                stopping_criteria=[clock],
            )
        return {
            "prompt_tokens": inputs["input_ids"].shape[1],
            "new_tokens": new_tokens,
            "first_seconds": clock.times[0] - start,
            "seconds": time.perf_counter() - start,
        }


def _open(part: Figures) -> Figures:
    return {"type": "image", "image": Image.open(part["path"]).convert("RGB")} if part["type"] == "image" else part


def user(text: str, image: str | None = None) -> Figures:
    """Return a user message."""
    shown = [] if image is None else [{"type": "image", "path": image}]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


def measure_ask(baseline: Baseline, args: argparse.Namespace) -> Figures:
    """One picture, one question."""
    question = [user(FIRST_QUESTION, args.image)]
    baseline.ask([user(WARM_UP)], 2)
    return {"runs": [baseline.ask(question, args.new_tokens) for _ in range(args.repeats)]}


def measure_memory(baseline: Baseline, args: argparse.Namespace) -> Figures:
    """Peak anonymous memory while answering a first question."""
    with Peak() as peak:
        run = baseline.ask([user(FIRST_QUESTION, args.image)], args.new_tokens)
    return {"answer_peak_bytes": peak.bytes, "runs": [run]}


def measure_turns(baseline: Baseline, args: argparse.Namespace) -> Figures:
    """Time to first token in two turns of a chat."""
    first = [user(FIRST_QUESTION, args.image)]
    answered = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    second = [*first, answered, user(SECOND_QUESTION)]
    baseline.ask([user(WARM_UP)], 2)
    runs = []
    for _ in range(args.repeats):
        run, follow = baseline.ask(first, 1), baseline.ask(second, 1)
        runs.append(
            {
                "prompt_tokens": run["prompt_tokens"],
                "second_prompt_tokens": follow["prompt_tokens"],
                "first_seconds": run["seconds"],
                "second_seconds": follow["seconds"],
            }
        )
    return {"runs": runs}


def measure_batch(baseline: Baseline, args: argparse.Namespace) -> Figures:
    """A loop over pictures; all cost the same, so a few are enough."""
    question = [user(FIRST_QUESTION, args.image)]
    baseline.ask([user(WARM_UP)], 2)
    start = time.perf_counter()
    for _ in range(args.pictures):
        baseline.ask(question, args.new_tokens)
    return {"runs": [{"pictures": args.pictures, "seconds": time.perf_counter() - start}]}


@torch.inference_mode()
def measure_context(baseline: Baseline, args: argparse.Namespace) -> Figures:
    """A decode step after contexts of several lengths; the cache is filled with random numbers."""
    config = baseline.model.config.text_config
    heads = config.num_key_value_heads
    size = config.hidden_size // config.num_attention_heads
    runs = []
    for tokens in args.contexts:
        cache = DynamicCache()
        for layer in range(config.num_hidden_layers):
            keys, values = (torch.randn(1, heads, tokens, size).to(baseline.model.dtype) for _ in range(2))
            cache.update(keys, values, layer)
        times = []
        for index in range(args.new_tokens):
            baseline.model(input_ids=torch.tensor([[index]]), past_key_values=cache, use_cache=True)
            times.append(time.perf_counter())
        steps = sorted(after - before for before, after in pairwise(times))
        runs.append({"prompt_tokens": tokens, "median_step_seconds": steps[len(steps) // 2]})
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
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--contexts", type=int, nargs="+", default=[600, 8000])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before = read_anonymous()
    with Peak() as peak:
        start = time.perf_counter()
        baseline = Baseline(args.checkpoint, DTYPES[args.dtype])
        seconds = time.perf_counter() - start
    loading = {
        "load_seconds": seconds,
        "load_peak_bytes": peak.bytes - before,
        "loaded_bytes": read_anonymous() - before,
        "before_bytes": before,
    }
    print(json.dumps({**loading, **MODES[args.mode](baseline, args)}))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.workers.documented CHECKPOINT IMAGE`: what a user of transformers would write to describe.

Prints the answer, and on a last line the seconds of its parts as JSON.
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402

# An extra of dsvl, which users of transformers need not have; if it is installed, transformers imports it.
sys.modules["torchao"] = None  # type: ignore[assignment]

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForImageTextToText,
    AutoProcessor,
    DeepseekVLForConditionalGeneration,  # noqa: F401  AutoModel would import it while loading
    StoppingCriteria,
)


class FirstToken(StoppingCriteria):
    """Records the time of the first token; never stops."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        """Record the time."""
        self.time = self.time or time.perf_counter()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def main() -> None:
    """Describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("image")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    imported = time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(args.checkpoint, dtype=getattr(torch, args.dtype)).eval()
    processor = AutoProcessor.from_pretrained(args.checkpoint)
    loaded = time.perf_counter()
    picture = {"type": "image", "image": Image.open(args.image).convert("RGB")}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "Describe this image."}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(model.device, dtype=model.dtype)
    first = FirstToken()
    with torch.inference_mode():
        ids = model.generate(
            **inputs,
            max_new_tokens=args.new_tokens,
            min_new_tokens=args.new_tokens,
            do_sample=False,
            stopping_criteria=[first],
        )
    print(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    answered = time.perf_counter()
    parts = {
        "imports": imported - START,
        "load": loaded - imported,
        "prefill": first.time - loaded,
        "decode": answered - first.time,
    }
    print(json.dumps({"parts": parts}))


if __name__ == "__main__":
    main()

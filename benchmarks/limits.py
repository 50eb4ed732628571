"""The limits of the machine: measured memory bandwidth and matrix rates, and the minimum a model needs of both."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.formats import width
from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER

BANDWIDTH_BYTES = 2**29  # far beyond any cache
MATRIX_SIDE = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a machine with a given number of threads.

    Attributes:
        bandwidth: bytes per second that can be read from memory.
        rates: operations per second in matrix products, by `fp32`, `bf16` and `int8`; a multiplication with its
            addition counts as two.
    """

    bandwidth: float
    rates: dict[str, float]

    def rate(self, format_name: str) -> float:
        """Return the rate of the fastest matrix units that a format can use; narrower numbers can always be upcast."""
        usable = {"fp32": ("fp32",), "bf16": ("fp32", "bf16")}.get(format_name, tuple(self.rates))
        return max(self.rates[name] for name in usable)


def measure_limits(threads: int) -> Limits:
    """Measure with torch: the sum of a large tensor, and products of square matrices."""
    import torch

    torch.set_num_threads(threads)
    large = torch.ones(BANDWIDTH_BYTES // 4)
    bandwidth = BANDWIDTH_BYTES / _best(large.sum)
    del large
    operations = 2 * MATRIX_SIDE**3
    a, b = (torch.randn(MATRIX_SIDE, MATRIX_SIDE) for _ in range(2))
    half_a, half_b = a.bfloat16(), b.bfloat16()
    rates = {
        "fp32": operations / _best(lambda: torch.nn.functional.linear(a, b)),
        "bf16": operations / _best(lambda: torch.nn.functional.linear(half_a, half_b)),
        "int8": operations / _best(_int8_product(MATRIX_SIDE)),
    }
    return Limits(bandwidth, rates)


def _int8_product(side: int) -> Callable[[], object]:
    """Return a function for oneDNN's product of 8-bit matrices, with the weight prepacked."""
    import torch

    numbers = torch.randint(0, 127, (side, side), dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(numbers.to(torch.int8), [side, side])
    scales, zeros = torch.ones(side), torch.zeros(side, dtype=torch.int32)
    rest: tuple[Any, ...] = (packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
    return lambda: torch.ops.onednn.qlinear_pointwise(numbers, 1.0, 0, *rest)


def _best(work: Callable[[], object], seconds: float = 1.5) -> float:
    """Repeat for some seconds, at least three times, and return the shortest time."""
    work()
    end, runs = time.perf_counter() + seconds, list[float]()
    while len(runs) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        runs.append(time.perf_counter() - start)
    return min(runs)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a DeepSeek-VL, from which its minimum work is computed.

    Attributes:
        layer_weights: of all linear layers of the language model's blocks.
        head_weights: of the output head, which only the last position of a prompt needs.
        hidden, layers: of the language model; its cache holds `2 * hidden` numbers a position and layer.
        vision_weights: of all linear layers of the vision tower and the aligner.
        vision_hidden, vision_layers, patches: of the vision tower.
        embedding_weights: of the token embeddings, of which a step reads one row.
    """

    layer_weights: int
    head_weights: int
    hidden: int
    layers: int
    vision_weights: int
    vision_hidden: int
    vision_layers: int
    patches: int
    embedding_weights: int

    @classmethod
    def read(cls, checkpoint: str) -> Shape:
        """Read the sizes from the `config.json` of a folder or of `tiny`."""
        folder = EMBEDDED_FOLDER if checkpoint == "tiny" else Path(checkpoint)
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        text, vision = config["text_config"], config["vision_config"]
        hidden, layers = text["hidden_size"], text["num_hidden_layers"]
        wide, vision_layers = vision["hidden_size"], vision["num_hidden_layers"]
        tied = config.get("tie_word_embeddings", False)
        vocabulary = text["vocab_size"] * hidden
        return cls(
            layer_weights=layers * (4 * hidden**2 + 3 * hidden * text["intermediate_size"]),
            head_weights=vocabulary,
            hidden=hidden,
            layers=layers,
            vision_weights=vision_layers * (4 * wide**2 + 2 * wide * vision["intermediate_size"])
            + 3 * vision["patch_size"] ** 2 * wide
            + wide * hidden
            + hidden**2,
            vision_hidden=wide,
            vision_layers=vision_layers,
            patches=(vision["image_size"] // vision["patch_size"]) ** 2,
            embedding_weights=0 if tied else vocabulary,
        )

    def cache_bytes(self, format_name: str, positions: int) -> float:
        """Return the bytes of keys and values: 32 bits for `fp32`, else 16."""
        return 2 * max(2.0, width(format_name)) * self.hidden * self.layers * positions

    def weight_bytes(self, format_name: str) -> float:
        """Return the bytes of all weights: the blocks of the language model in the format, without scales.

        Towers, embeddings and head are counted in 32 bits for `fp32`, else in 16.
        """
        others = max(2.0, width(format_name)) * (self.vision_weights + self.embedding_weights + self.head_weights)
        return others + width(format_name) * self.layer_weights

    def step_bytes(self, format_name: str, positions: int) -> float:
        """Return the minimum bytes that a decode step reads: head and layers in the format, and the cache."""
        return width(format_name) * (self.layer_weights + self.head_weights) + self.cache_bytes(format_name, positions)

    def prefill_seconds(self, limits: Limits, format_name: str, tokens: int, pictures: int = 1) -> float:
        """Return the minimum seconds for a prompt; the vision tower computes in bf16."""
        linear = 2.0 * (self.layer_weights * tokens + self.head_weights)
        attention = 2.0 * self.layers * self.hidden * tokens**2  # causal: half of all pairs, scores and values
        vision = (
            2.0 * self.vision_weights * self.patches + 4.0 * self.vision_layers * self.vision_hidden * self.patches**2
        )
        whole = "fp32" if format_name == "fp32" else "bf16"
        return linear / limits.rate(format_name) + (attention + pictures * vision) / limits.rate(whole)

    def turn_seconds(self, limits: Limits, format_name: str, before: int, tokens: int) -> float:
        """Return the minimum seconds until the first token of a turn of text, of which `before` tokens are cached.

        The weights are read once, and so is the cache; few tokens need less time for their products.
        """
        linear = 2.0 * (self.layer_weights * tokens + self.head_weights) / limits.rate(format_name)
        return max(linear, self.step_bytes(format_name, before) / limits.bandwidth)

    def batch_rate(self, limits: Limits, format_name: str, prompt_tokens: int, new_tokens: int, pictures: int) -> float:
        """Return the most pictures a minute, answered so many at a time: a step reads the weights once for all."""
        positions = prompt_tokens + new_tokens // 2
        bytes_read = self.step_bytes(format_name, 0) + pictures * self.cache_bytes(format_name, positions)
        linear = 2.0 * pictures * (self.layer_weights + self.head_weights) / limits.rate(format_name)
        steps = (new_tokens - 1) * max(bytes_read / limits.bandwidth, linear)
        return 60 * pictures / (pictures * self.prefill_seconds(limits, format_name, prompt_tokens) + steps)

    def answer_seconds(self, limits: Limits, format_name: str, prompt_tokens: int, new_tokens: int) -> float:
        """Return the minimum seconds for a question about one picture, until the last new token."""
        positions = prompt_tokens + new_tokens // 2
        steps = (new_tokens - 1) * self.step_bytes(format_name, positions) / limits.bandwidth
        return self.prefill_seconds(limits, format_name, prompt_tokens) + steps

"""What a user can choose about loading and about sampling. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsvl_cli.errors import UsageError

ATTENTION = ("auto", "eager", "sdpa", "flash_attention_2")
DEFAULT_GROUP_SIZE = 128
DEFAULT_MODEL = "1.3b"
DEFAULT_PROMPT = "Describe this image."
IMAGE_MARK = "<image>"

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Attention = Literal["auto", "eager", "sdpa", "flash_attention_2"]
Quantization = Literal[
    "4bit",
    "8bit",
    "bnb-nf4",
    "bnb-fp4",
    "bnb-int8",
    "torchao-int8",
    "torchao-int8-dynamic",
    "torchao-int4",
    "int8",
    "int4",
]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model.

    Attributes:
        model: an alias (`tiny`, `1.3b`, `7b`, `1.3b-base`, `7b-base`), a hub id `org/name`, or a folder.
        revision: a branch, tag or commit of the hub's repository.
        offline: never open a connection.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or `xpu`.
        dtype: of the weights and of the computation.
        attn_implementation: of the language model and, where they have it, of the vision towers.
        device_map: `auto` spreads the layers over all GPUs; None keeps the model on one device.
        threads: CPU threads; None leaves torch's own choice.
        force: load even when the forecast says that the memory will not do.
        quantization: the format that the language model's linear layers are brought to while they are loaded; `4bit`
            and `8bit` take the best of that width. None leaves the weights as they are.
        group_size: of `torchao-int4`: so many neighbouring weights share a scale.
        include_vision, include_head: quantize the vision towers and the aligner, or the output head, too.
        cache: keep the computed state of prompts, pictures included, in the cache folder for later processes.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    offline: bool = False
    device: str = "auto"
    dtype: Dtype = "auto"
    attn_implementation: Attention = "auto"
    device_map: Literal["auto"] | None = None
    threads: int | None = None
    force: bool = False
    quantization: Quantization | None = None
    group_size: int = DEFAULT_GROUP_SIZE
    include_vision: bool = False
    include_head: bool = False
    cache: bool = False


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose the next token, and when to stop.

    Attributes:
        max_new_tokens: at most so many tokens, >= 1.
        temperature: 0.0 is greedy: always the likeliest token.
        top_k: keep the k likeliest; 0 keeps all.
        top_p: keep the likeliest whose probabilities sum to p, in (0, 1]; 1.0 keeps all.
        min_p: keep those at least p times as likely as the likeliest, in [0, 1]; 0.0 keeps all.
        repetition_penalty: > 1.0 makes tokens that already stand in the prompt or the answer less likely.
        seed: makes sampling repeatable; None draws a fresh one.
        stop: the answer ends before the first of these strings.

    Raises:
        UsageError: a value is out of its bounds; the message names it.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _require(0.0 <= self.temperature <= 100.0, "temperature", self.temperature, "between 0 and 100")
        _require(self.top_k >= 0, "top_k", self.top_k, "0 (off) or more")
        _require(0.0 < self.top_p <= 1.0, "top_p", self.top_p, "above 0 and at most 1")
        _require(0.0 <= self.min_p <= 1.0, "min_p", self.min_p, "between 0 and 1")
        _require(0.0 < self.repetition_penalty <= 100.0, "repetition_penalty", self.repetition_penalty, "above 0")
        _require(self.seed is None or 0 <= self.seed < 2**63, "seed", self.seed, "between 0 and 2^63 - 1")
        _require(all(self.stop), "stop", "''", "a string that is not empty")


def _require(holds: bool, name: str, value: object, bound: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value}; it must be {bound}")

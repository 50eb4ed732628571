"""The options of loading and sampling. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsvl_cli.errors import UsageError

DTYPES = ("auto", "bfloat16", "float16", "float32")
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
        revision: a branch, tag or commit of the hub repository.
        offline: never connect to the network.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or `xpu`.
        dtype: of the weights and the computation.
        attn_implementation: the attention backend of the language model and, where supported, the vision towers.
        device_map: `auto` spreads the layers over all GPUs; None keeps the model on one device.
        threads: CPU threads; None leaves the choice to torch.
        force: load even if the estimate says that there is not enough memory.
        quantization: the format to quantize the language model's linear layers to while loading; `4bit` and `8bit`
            select the best one of that width. None leaves the weights as stored.
        group_size: for `torchao-int4`, the number of adjacent weights that share a scale.
        include_vision, include_head: also quantize the vision towers and the aligner, or the output head.
        cache: save the KV cache of prompts, pictures included, in the cache folder for later processes.
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
        max_new_tokens: the maximum number of tokens to generate, >= 1.
        temperature: 0.0 is greedy decoding.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the most likely tokens whose probabilities sum to p, in (0, 1]; 1.0 keeps all.
        min_p: keep tokens at least p times as likely as the most likely one, in [0, 1]; 0.0 keeps all.
        repetition_penalty: > 1.0 makes tokens that are already in the prompt or the answer less likely.
        seed: makes sampling reproducible; None uses a random one.
        stop: the answer ends before the first of these strings.

    Raises:
        UsageError: a value is out of range; the message names it.
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
        _require(all(self.stop), "stop", "''", "a non-empty string")


def _require(holds: bool, name: str, value: object, bound: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value}; it must be {bound}")

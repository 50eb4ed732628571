"""What a user can choose about loading and about answers: the defaults, and what each value must be. No torch here.

`RULES` is the only place that says what a value must be. The options below refuse what breaks their rule; the command
line, the files and variables of `dsvl_cli.settings`, and the chat's `/set` take their bounds and choices from it.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from dsvl_cli.engine.constraints import Constraint
from dsvl_cli.errors import SettingError, UsageError

DEFAULT_GROUP_SIZE = 128
DEFAULT_MODEL = "1.3b"
DEFAULT_PROMPT = "Describe this image."
IMAGE_MARK = "<image>"
SAMPLES_TEMPERATURE = 0.7  # of several answers to one question, where none is set: at 0 they would all be equal

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Attention = Literal["auto", "eager", "sdpa", "flash_attention_2"]
DeviceMap = Literal["auto"]
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
# What a chat does when the conversation no longer fits into the context.
Overflow = Literal["error", "drop-oldest"]
DEFAULT_OVERFLOW: Overflow = "error"
MOST_LOGPROBS = 20  # alternatives to each token, as in OpenAI's API

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
ATTENTION: tuple[Attention, ...] = get_args(Attention)
DEVICE_KINDS = ("cpu", "cuda", "mps", "xpu")
LARGEST_SEED = 2**63 - 1
_DRAWN_SEEDS = 2**31  # short enough to be typed again


@dataclass(frozen=True, slots=True)
class Bound:
    """A range of numbers that a setting accepts.

    Attributes:
        kind: `int` or `float`; where `float` is allowed, integers are too.
        low: the minimum.
        high: the maximum, or None if there is none.
        is_open: whether `low` itself is excluded.
        high_name: what `high` is, if it differs between machines.
    """

    kind: type[int] | type[float]
    low: float
    high: float | None = None
    is_open: bool = False
    high_name: str | None = None

    def holds(self, value: Any) -> bool:
        """Whether a number is in the range."""
        enough = value > self.low if self.is_open else value >= self.low
        return bool(enough and (self.high is None or value <= self.high))

    @property
    def limits(self) -> str:
        """The range in words, the same on every machine: `between 0 and 1`."""
        if self.high is None:
            return f"above {_write(self.low)}" if self.is_open else f"at least {_write(self.low)}"
        if self.is_open:
            return f"above {_write(self.low)} and at most {_write(self.high)}"
        return f"between {_write(self.low)} and {self.high_name or _write(self.high)}"

    @property
    def offered(self) -> tuple[float, ...]:
        """The ends of the range that are allowed values."""
        return tuple(end for end in (None if self.is_open else self.low, self.high) if end is not None)

    def __str__(self) -> str:
        kind = "a whole number" if self.kind is int else "a number"
        words = f"{kind}{' of' if self.limits.startswith('at least') else ''} {self.limits}"
        return words if self.high is None or self.high_name is None else f"{words}, {_write(self.high)}"


@dataclass(frozen=True, slots=True)
class Choices:
    """A fixed set of values that a setting accepts.

    Attributes:
        offered: the allowed values.
        numbered: those that may be followed by a number, as in `cuda:0`.
    """

    offered: tuple[str, ...] | tuple[int, ...]
    numbered: tuple[str, ...] = ()

    @property
    def kind(self) -> type:
        """The type of the values."""
        return type(self.offered[0])

    def holds(self, value: Any) -> bool:
        """Whether a value is allowed."""
        if value in self.offered or not isinstance(value, str):
            return value in self.offered
        name, _, number = value.partition(":")
        return name in self.numbered and number.isascii() and number.isdigit()

    @property
    def limits(self) -> str:
        """The choices in words."""
        names = ((str(each), f"{each}:N") if each in self.numbered else (str(each),) for each in self.offered)
        return f"one of {', '.join(name for forms in names for name in forms)}"

    def __str__(self) -> str:
        return self.limits


@dataclass(frozen=True, slots=True)
class NotEmpty:
    """A non-empty text, or a list of non-empty texts; `kind` is `str` or `list`."""

    kind: type[str] | type[list[str]]
    offered: tuple[str, ...] = ()

    def holds(self, value: Any) -> bool:
        """Whether the text, or every text of the list, is non-empty."""
        return bool(value) if isinstance(value, str) else all(type(text) is str and text for text in value)

    @property
    def limits(self) -> str:
        """The rule in words."""
        return "a text that is not empty" if self.kind is str else "a list of texts that are not empty"

    def __str__(self) -> str:
        return self.limits


def count_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


Rule = Bound | Choices | NotEmpty

DEVICES = Choices(("auto", *DEVICE_KINDS), numbered=("cuda",))
RULES: Mapping[str, Rule] = {
    "model": NotEmpty(str),
    "revision": NotEmpty(str),
    "device": DEVICES,
    "dtype": Choices(DTYPES),
    "attn_implementation": Choices(ATTENTION),
    "device_map": Choices(get_args(DeviceMap)),
    # More threads than CPUs only wait for each other, and with thousands OpenMP's runtime crashes.
    "threads": Bound(int, 1, count_cpus(), high_name="the number of CPUs"),
    "quantization": Choices(get_args(Quantization)),
    "group_size": Choices((32, 64, 128, 256)),
    "max_new_tokens": Bound(int, 1),
    "temperature": Bound(float, 0, 100),
    "top_k": Bound(int, 0),
    "top_p": Bound(float, 0, 1, is_open=True),
    "min_p": Bound(float, 0, 1),
    "repetition_penalty": Bound(float, 0, 100, is_open=True),
    "seed": Bound(int, 0, LARGEST_SEED),
    "stop": NotEmpty(list),
    "samples": Bound(int, 1, 128),
    "overflow": Choices(get_args(Overflow)),
}


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
        threads: CPU threads, at most as many as the process has CPUs; None leaves the choice to torch.
        force: load even if the estimate says that there is not enough memory.
        quantization: the format to quantize the language model's linear layers to while loading; `4bit` and `8bit`
            select the best one of that width. None leaves the weights as stored.
        group_size: for `torchao-int4`, the number of adjacent weights that share a scale.
        include_vision, include_head: also quantize the vision towers and the aligner, or the output head.
        cache: save the KV cache of prompts, pictures included, in the cache folder for later processes.

    Raises:
        UsageError: a value is out of range; the message names it.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    offline: bool = False
    device: str = "auto"
    dtype: Dtype = "auto"
    attn_implementation: Attention = "auto"
    device_map: DeviceMap | None = None
    threads: int | None = None
    force: bool = False
    quantization: Quantization | None = None
    group_size: int = DEFAULT_GROUP_SIZE
    include_vision: bool = False
    include_head: bool = False
    cache: bool = False

    def __post_init__(self) -> None:
        _check_values(self)


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
        constraint: what form the answer must have: one of a list, or JSON of a schema; None leaves it free. From a
            list the most likely one is taken, and no field but `logprobs` matters.
        logprobs: compute the log probability of each token, beside those of so many alternatives, at most 20; None
            computes none.

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
    constraint: Constraint | None = None
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _check_values(self)
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise UsageError(f"logprobs is {self.logprobs}; it must be between 0 and {MOST_LOGPROBS}")


# Fields of `SamplingParams` that belong to a single question, and are not settings.
OF_A_QUESTION = frozenset({"constraint", "logprobs"})


def check_value(name: str, value: Any) -> None:
    """Refuse what breaks the rule of a setting.

    Raises:
        UsageError: with the rule.
    """
    if not RULES[name].holds(value):
        raise refuse(name, list(value) if isinstance(value, tuple) else value)


def refuse(name: str, value: object, hint: str | None = None) -> UsageError:
    """Make the error that says what the value of a setting must be."""
    return SettingError(name, value, f"it must be {RULES[name]}", hint)


def draw_seed() -> int:
    """Draw a seed by chance, so that it can be told and the answer repeated."""
    return secrets.randbelow(_DRAWN_SEEDS)


def _check_values(options: LoadOptions | SamplingParams) -> None:
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in RULES and (value is not None or field.default is not None):
            check_value(field.name, value)


def _write(number: float) -> str:
    return "2^63 - 1" if number == LARGEST_SEED else f"{number:g}"

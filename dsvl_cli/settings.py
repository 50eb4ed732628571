"""Which settings there are, and what each may be; where they stand in files is told by `config`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_KIND_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list of texts"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a setting may be.

    Attributes:
        kind: its type; a `float` may be written as a whole number, a `list` holds texts.
        bound: what must hold for it, in words.
        holds: the same as a test of a value of the kind.
        offered: right values, of which the nearest is named where a wrong one stands.
    """

    kind: type
    bound: str = ""
    holds: Callable[[Any], bool] = lambda _: True
    offered: tuple[Any, ...] = ()

    @property
    def words(self) -> str:
        """What a value must be."""
        return self.bound if self.kind is str and self.bound else f"{_KIND_WORDS[self.kind]} {self.bound}".strip()

    def accepts(self, value: object) -> bool:
        """Whether a value, as TOML gives it, is right."""
        kinds = (int, float) if self.kind is float else (self.kind,)
        return type(value) in kinds and self.holds(value)

    def nearest(self, value: object) -> Any:
        """Name the right value that is nearest to a wrong one; None where none is near."""
        if isinstance(value, str) and self.kind in (bool, int, float):
            value = (parse_toml(f"value = {value.lower()}") or {}).get("value")  # written in quotes
            if self.accepts(value):
                return value
        if self.kind in (int, float) and isinstance(value, (int, float)) and value == value:
            return min(self.offered, key=lambda offer: abs(offer - value), default=None)
        return find_nearest(str(value), self.offered) if self.kind is str else None


def _at_least(low: int) -> Setting:
    return Setting(int, f"of at least {low}", lambda value: value >= low, (low,))


def _between(low: float, high: float) -> Setting:
    return Setting(float, f"between {low:g} and {high:g}", lambda value: low <= value <= high, (low, high))


def _above_zero(high: float) -> Setting:
    return Setting(float, f"above 0 and at most {high:g}", lambda value: 0 < value <= high, (high,))


def _one_of(*choices: str) -> Setting:
    return Setting(str, f"one of {', '.join(choices)}", lambda value: value in choices, choices)


_TEXT, _NAME, _SWITCH = Setting(str), Setting(str, "a text that is not empty", bool), Setting(bool)
_DEVICE = Setting(
    str,
    "auto, cpu, cuda, cuda:N, mps or xpu",
    lambda value: re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps|xpu", value) is not None,
    ("auto", "cpu", "cuda", "mps", "xpu"),
)
_QUANTIZATIONS = (
    "4bit", "8bit", "bnb-nf4", "bnb-fp4", "bnb-int8", "torchao-int8", "torchao-int8-dynamic", "torchao-int4",
    "int8", "int4",
)  # fmt: skip
_GROUPS = (32, 64, 128, 256)

# The bounds of sampling are those of `engine.options.SamplingParams`.
SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "loading": {
        "model": _NAME,
        "revision": _NAME,
        "offline": _SWITCH,
        "device": _DEVICE,
        "dtype": _one_of("auto", "bfloat16", "float16", "float32"),
        "attn_implementation": _one_of("auto", "eager", "sdpa", "flash_attention_2"),
        "device_map": _one_of("auto"),
        "threads": _at_least(1),
        "quantization": _one_of(*_QUANTIZATIONS),
        "group_size": Setting(int, "out of 32, 64, 128, 256", lambda value: value in _GROUPS, _GROUPS),
        "cache": _SWITCH,
    },
    "prompts": {"prompt": _TEXT, "system": _TEXT},
    "sampling": {
        "max_new_tokens": _at_least(1),
        "temperature": _between(0, 100),
        "top_p": _above_zero(1),
        "top_k": _at_least(0),
        "min_p": _between(0, 1),
        "repetition_penalty": _above_zero(100),
        "seed": Setting(int, "between 0 and 2^63 - 1", lambda value: 0 <= value < 2**63, (0, 2**63 - 1)),
        "stop": Setting(list, "that are not empty", lambda texts: all(text and type(text) is str for text in texts)),
    },
    "output": dict.fromkeys(("no_stream", "stats", "plain", "quiet", "verbose"), _SWITCH),
    "chat": {"no_save": _SWITCH, "overflow": _one_of("error", "drop-oldest")},
}
ALL_SETTINGS = {name: setting for table in SETTINGS.values() for name, setting in table.items()}


def parse_toml(text: str) -> dict[str, Any] | None:
    """Parse TOML; None where it is none."""
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def find_nearest(name: str, names: Iterable[str]) -> str | None:
    """Find the name that a wrong one is most like; None where none is like it."""
    import difflib

    return next(iter(difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1)), None)

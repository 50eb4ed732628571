"""The goals beside transformers in bf16 and llama.cpp, by kind of CPU: what is in reach depends on its instructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.results import Goal

EVENNESS = Goal("at most", 1.5)  # the slowest format over the fastest; on every CPU


@dataclass(frozen=True, slots=True)
class Goals:
    """The goals on a kind of CPU; by default there are none. Mappings are keyed by the bytes of a weight.

    Attributes:
        first: time to first token, of transformers bf16.
        first_llama: the same, of llama.cpp without the picture.
        step_llama: a decode step, llama.cpp's over ours.
        answer_llama: from the question to the last of 100 tokens, of llama.cpp q4_0 and our picture.
        process: a whole process in the fastest format, of transformers bf16.
        second_turn: time to first token in the second turn of a chat, of transformers bf16.
        batch: pictures per minute, over a loop of transformers bf16.
    """

    first: Mapping[float, Goal] = field(default_factory=dict)
    first_llama: Mapping[float, Goal] = field(default_factory=dict)
    step_llama: Mapping[float, Goal] = field(default_factory=dict)
    answer_llama: Mapping[float, Goal] = field(default_factory=dict)
    process: Goal | None = None
    second_turn: Goal | None = None
    batch: Mapping[float, Goal] = field(default_factory=dict)


def _bounds(kind: Literal["at most", "at least"], **bounds: float) -> dict[float, Goal]:
    return {_WIDTHS[name]: Goal(kind, bound) for name, bound in bounds.items()}


_WIDTHS = {"bf16": 2.0, "int8": 1.0, "int4": 0.5}
_VNNI = Goals(
    first=_bounds("at most", bf16=0.75, int8=0.6, int4=0.6),
    first_llama=_bounds("at most", int8=0.5, int4=0.65),
    step_llama=_bounds("at least", bf16=1.0, int8=1.05, int4=1.1),
    answer_llama=_bounds("at most", int4=0.75),
    process=Goal("at most", 0.25),
    second_turn=Goal("at most", 0.04),
    batch=_bounds("at least", bf16=4, int8=6),
)
_AVX2 = Goals(
    first=_bounds("at most", bf16=0.2, int8=0.2, int4=0.2),
    first_llama=_bounds("at most", int8=0.8, int4=0.8),
    step_llama=_bounds("at least", bf16=1.1, int8=1.1, int4=1.1),
    answer_llama=_bounds("at most", int4=0.8),
    process=Goal("at most", 0.2),
    second_turn=Goal("at most", 0.01),
    batch=_bounds("at least", bf16=5, int8=5),
)
_GOALS = {"AVX-512 VNNI": _VNNI, "AVX-512 VNNI BF16": _VNNI, "AVX2": _AVX2}


def goals_for(cpu: str) -> Goals:
    """Return the goals on a kind of CPU (cpu.py)."""
    return _GOALS.get(cpu, Goals())

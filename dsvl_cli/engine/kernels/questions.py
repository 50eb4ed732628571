"""Which implementation of a product to use, as a question: its candidates, and the answer with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import torch

REFERENCE = "reference"  # chosen if no candidate is usable


class ShapeClass(Enum):
    """How many rows a product has: a decode step, a batch of them, a prompt."""

    ONE_ROW = "one row"
    FEW_ROWS = "few rows"
    PROMPT = "prompts"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One implementation of a product.

    Attributes:
        name: such as "native" or "float32".
        prepare: takes the size of a product, and returns a function that computes it; only that function is timed.
        tolerance: the largest accepted error, relative to the largest magnitude of the reference.
    """

    name: str
    prepare: Callable[[int], Callable[[], torch.Tensor]]
    tolerance: float


@dataclass(frozen=True, slots=True)
class Question:
    """A choice to make.

    Attributes:
        name: such as "int8 prompts".
        candidates: the default one comes first.
        reference: computes the product of a size in a way known to be right; how long that takes does not matter.
        sizes: ascending; the work grows with the square. The last one is as large as the choice needs to be typical.
    """

    name: str
    candidates: tuple[Candidate, ...]
    reference: Callable[[int], torch.Tensor]
    sizes: tuple[int, ...]

    @property
    def names(self) -> set[str]:
        """The names of the candidates."""
        return {candidate.name for candidate in self.candidates}


@dataclass(frozen=True, slots=True)
class Measured:
    """The answer to a question.

    Attributes:
        question: its name.
        chosen: the name of a candidate, or `REFERENCE`.
        complete: whether it is final; otherwise `chosen` is the default candidate.
        size: of the product that was timed; 0 if none was.
        seconds: the time of each usable candidate.
        dropped: the other candidates, and why.
        one_thread: whether products ran on one thread, because other processes kept the CPU busy.
        obstacle: if it is not complete, what prevented measuring.
    """

    question: str
    chosen: str
    complete: bool
    size: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    one_thread: bool = False
    obstacle: str = ""

    @property
    def reason(self) -> str:
        """Why it was chosen, in one line: "time 0.50 of float32; bfloat16 raises RuntimeError: ..."."""
        reasons = [f"{name} {why}" for name, why in self.dropped.items()]
        if not self.complete:
            return "; ".join([f"not measured yet{self.obstacle and f': {self.obstacle}'}", *reasons])
        if self.chosen == REFERENCE:
            return "; ".join(["no candidate is usable", *reasons])
        own = self.seconds[self.chosen]
        others = {name: own / seconds for name, seconds in self.seconds.items() if name != self.chosen}
        if others:
            ratios = ", ".join(f"{ratio:.2f} of {name}" for name, ratio in others.items())
            near = ", too close to change the default" if max(others.values()) > 1 else ""
            where = " (on one thread: the CPU was busy)" if self.one_thread else ""
            reasons.insert(0, f"time {ratios}{near}{where}")
        return "; ".join(reasons or ["the only candidate"])

    def fits(self, question: Question) -> bool:
        """Whether it is about these candidates: those of another release may differ."""
        if not self.complete:
            return self.dropped.keys() <= question.names
        return self.seconds.keys() | self.dropped.keys() == question.names

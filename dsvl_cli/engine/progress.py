"""How the engine reports what it is doing, independently of who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Choice:
    """An automatic choice and the reason for it: `Choice("dtype", "bfloat16", "the CPU has AVX-512-BF16")`."""

    what: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a prompt has been read.

    Attributes:
        tokens: how many tokens are read, those from a cache included.
        total: how many the prompt has.
        picture: the picture that is being encoded, from 1; 0 if none is.
        pictures: how many there are to encode.
    """

    tokens: int
    total: int
    picture: int = 0
    pictures: int = 0


OnReading = Callable[[Reading], None]


class Listener(Protocol):
    """Receives reports while a model is found, downloaded and loaded. Texts are one line and not sanitized."""

    def note(self, text: str) -> None:
        """A message that is always shown to the user."""
        ...

    def choice(self, choice: Choice) -> None:
        """An automatic choice; shown by `--verbose`."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `what`; `done == total` ends it."""
        ...


class Silence:
    """A listener that ignores everything."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def choice(self, choice: Choice) -> None:
        """Ignore it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Ignore it."""

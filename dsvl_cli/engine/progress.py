"""How the engine tells what it is doing, without knowing who listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice made for the user, with its reason: `Choice("dtype", "bfloat16", "the CPU has AVX-512-BF16")`."""

    what: str
    value: str
    reason: str


class Listener(Protocol):
    """Is told what goes on while a model is found, fetched and loaded. Texts are one line and not sanitized."""

    def note(self, text: str) -> None:
        """Something that every user should read once."""
        ...

    def choice(self, choice: Choice) -> None:
        """An automatic choice; shown by `--verbose`."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `what`; `done == total` ends it."""
        ...


class Silence:
    """A listener that does not listen."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def choice(self, choice: Choice) -> None:
        """Ignore it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Ignore it."""

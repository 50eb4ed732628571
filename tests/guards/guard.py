"""What a guard is, and where the list of them is."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Guard:
    """A piece of the program that keeps a promise of SECURITY.md, and how to take it out."""

    area: str  # the name of its list
    name: str  # what it prevents
    threat: int  # the number of the promise in SECURITY.md
    file: str
    find: str  # occurs once in the file
    replace: str
    tests: tuple[str, ...]  # node ids, at least one of which fails without the guard

    def without(self, source: str) -> str:
        """Return the file's text without the guard.

        Raises:
            ValueError: the guard is not there, or not once
        """
        if (count := source.count(self.find)) != 1:
            raise ValueError(f"{self.area}, {self.name}: its text occurs {count} times in {self.file}")
        return source.replace(self.find, self.replace)


def read_guards() -> list[Guard]:
    """Return what the lists `tests/guards/*.toml` hold."""
    return [
        Guard(area=path.stem, **{**entry, "tests": tuple(entry["tests"])})
        for path in sorted(Path(__file__).parent.glob("*.toml"))
        for entry in tomllib.loads(path.read_text("utf-8"))["guard"]
    ]

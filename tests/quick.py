"""Which test modules need no torch: `python -m pytest -m quick` imports and runs only those, in about a minute.

A module is quick if it imports nothing that imports torch: it itself anywhere, and what it stands on at its top. What
does so only while it runs cannot be seen from outside: `SLOW` names it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
HEAVY = ("torch", "transformers", "accelerate", "bitsandbytes", "torchao", "safetensors.torch")
MODEL_FIXTURES = frozenset({"tiny", "hybrid", "hybrid_folder"})

# A line that imports; the names in brackets over several lines are no modules in this repository.
_IMPORT = re.compile(r"^([ ]*)(?:from ([\w.]+) import ([\w, ]*)|import ([\w., ]+))", re.MULTILINE)
_NAME = re.compile(r"[\w.]+")

# What runs the model without importing it; and what of the rest takes as long as all others together.
SLOW = frozenset(
    {
        "app/test_doctor.py", "benchmarks/test_results.py", "benchmarks/test_smoke.py",
        "commands/test_answer_columns.py", "commands/test_answer_forms.py",
        "commands/test_batch.py", "commands/test_samples.py", "commands/test_doctor.py", "commands/test_undecodable.py",
        "engine/machine/test_detect.py",
        "engine/test_diagnosis.py", "foreign/test_openai.py", "test_public.py", "test_readme.py",

        "batch/test_kill.py", "engine/checkpoint/test_hub.py", "test_conftest.py", "test_connections.py",
        "test_quick.py",
        "batch/test_malformed.py::test_no_bomb_goes_off",
        "engine/checkpoint/test_originals.py::test_the_command_says_it",
        "engine/storage/test_folders.py::test_whatever_ends_it_the_folder_is_whole_or_not_there",
        "terminal/test_markdown.py::test_history_and_screen_show_the_one_shot_rendering",
        "terminal/test_markdown.py::test_no_foreign_control_character_reaches_the_terminal",
        "terminal/test_markdown.py::test_nothing_is_lost_when_the_window_changes",
    }
)  # fmt: skip


def is_quick(path: Path, test: str = "") -> bool:
    """Whether a test module, or a test of it, is part of the quick tier."""
    if not path.is_relative_to(TESTS):
        return False
    name = path.relative_to(TESTS).as_posix()
    return not {name, f"{name}::{test}"} & SLOW and not _needs_torch(path)


@cache
def _needs_torch(path: Path) -> bool:
    """Whether torch comes with a module."""
    names = _imports(path, everywhere=True)
    seen: set[str] = set()
    while names:
        if any(f"{name}.".startswith(f"{heavy}.") for name in names for heavy in HEAVY):
            return True
        seen |= names
        found = (_imports(place, everywhere=False) for name in names if (place := _place(name)))
        names = frozenset().union(*found) - seen
    return False


@cache
def _imports(path: Path, *, everywhere: bool) -> frozenset[str]:
    """The modules that a file imports: where it is imported itself, or also further in."""
    found = set()
    for indent, package, names, modules in _IMPORT.findall(path.read_text(encoding="utf-8")):
        if everywhere or not indent:
            found |= {package, *(f"{package}.{name}" for name in _NAME.findall(names)), *_NAME.findall(modules)} - {""}
    return frozenset(found)


@cache
def _place(name: str) -> Path | None:
    """Where a module of this repository stands; None for all others."""
    path = TESTS.parent / name.replace(".", "/")
    places = (path.with_suffix(".py"), path / "__init__.py")
    return next((place for place in places if place.is_file()), None)

"""The choices of choices.py in the cache folder, so that each is measured once on a machine."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dsvl_cli.engine.kernels.choices import Budget, choose
from dsvl_cli.engine.kernels.questions import REFERENCE, Measured, Question
from dsvl_cli.engine.machine.instruction_sets import describe_cpu
from dsvl_cli.engine.storage.cache_folder import cache_folder
from dsvl_cli.engine.storage.files import new_file, remove_abandoned
from dsvl_cli.engine.storage.private import make_private_folder

_FORMAT = 1
_LARGEST_FILE = 10**6  # bytes


class ChoiceTable:
    """Answers stored in the cache folder, one file for each identity: machines may share a home directory.

    What cannot be read counts as not measured, and what cannot be written is measured again at the next start. Files
    are replaced atomically; of two processes that measure at once, the last one to write wins.

    Args:
        identity: what the answers depend on, from `identify`.
        folder: the cache folder by default.
    """

    def __init__(self, identity: Mapping[str, str], folder: Path | None = None) -> None:
        self._identity = dict(identity)
        digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()
        self.path = (folder or cache_folder()) / f"products-{digest[:16]}.json"
        self.fault: str | None = None  # why the last write failed

    def read(self) -> dict[str, Measured]:
        """Return the answers by the name of their question."""
        try:
            if not self.path.is_file():
                return {}
            with self.path.open("rb") as file:
                page = json.loads(file.read(_LARGEST_FILE))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(page, dict) or page.get("format") != _FORMAT or page.get("identity") != self._identity:
            return {}
        rows = page.get("answers")
        found = (_parse(row) for row in (rows if isinstance(rows, list) else []))
        return {row.question: row for row in found if row is not None}

    def write(self, answers: Mapping[str, Measured]) -> None:
        """Add answers, replacing those to the same questions."""
        rows = [_serialize(answer) for answer in {**self.read(), **answers}.values()]
        page = {"format": _FORMAT, "identity": self._identity, "answers": rows}
        self.fault = None
        try:
            make_private_folder(self.path.parent)
            remove_abandoned(self.path.parent)
            with new_file(self.path, 0o600) as file:
                file.write(json.dumps(page, indent=1).encode())
        except OSError as exc:
            self.fault = exc.strerror or str(exc)


def measure(
    questions: Sequence[Question], table: ChoiceTable, budget: Budget | None = None, *, renew: bool = False
) -> dict[str, Measured]:
    """Return the answers to some questions by name, measuring and storing those that the table lacks.

    Args:
        questions: only those that matter now: others would use up the budget.
        table: the stored answers.
        budget: by default `choices.SECONDS`, starting now.
        renew: measure everything again.
    """
    budget = budget or Budget()
    answers = recall(questions, table)
    if renew:
        answers |= {question.name: _default_answer(question) for question in questions}
    new: dict[str, Measured] = {}
    for question in questions:
        if not answers[question.name].complete:
            answer = choose(question, budget, answers[question.name].dropped)
            answers[question.name] = answer
            if answer.complete or answer.dropped:
                new[question.name] = answer
    if new:
        table.write(new)
    return answers


def _default_answer(question: Question) -> Measured:
    return Measured(question.name, question.candidates[0].name, False)


def recall(questions: Sequence[Question], table: ChoiceTable) -> dict[str, Measured]:
    """Return the stored answers to some questions by name; where there is none, the default candidate, unmeasured."""
    kept, answers = table.read(), {}
    for question in questions:
        answer = kept.get(question.name)
        if answer is None or not answer.fits(question):
            answer = _default_answer(question)
        answers[question.name] = answer
    return answers


def _serialize(answer: Measured) -> dict[str, Any]:
    return {
        "question": answer.question,
        "chosen": answer.chosen,
        "complete": answer.complete,
        "size": answer.size,
        "seconds": dict(answer.seconds),
        "dropped": dict(answer.dropped),
        "one_thread": answer.one_thread,
    }


def _parse(row: object) -> Measured | None:
    """Check a row of a file that anything may have written; None if it is not an answer."""
    match row:
        case {
            "question": str(question),
            "chosen": str(chosen),
            "complete": bool(complete),
            "size": int(size),
            "seconds": dict(seconds),
            "dropped": dict(dropped),
            "one_thread": bool(one_thread),
        }:
            pass
        case _:
            return None
    numbers = (isinstance(value, float) and math.isfinite(value) and value > 0 for value in seconds.values())
    if not all(numbers) or not all(isinstance(why, str) for why in dropped.values()):
        return None
    if complete and chosen != REFERENCE and chosen not in seconds:
        return None
    return Measured(question, chosen, complete, size, seconds, dropped, one_thread)


def identify(fingerprint: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return what the answers depend on: the CPU, torch, the number of threads, and the compiled kernels.

    Args:
        fingerprint: of the compiled kernels; "" without.
        cpuinfo: Linux's description of the CPU.
    """
    cpu = describe_cpu(cpuinfo)
    # These restrict the instructions that torch and oneDNN use.
    limits = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    return {
        "cpu": cpu.get("model name", cpu["processor"]),
        "features": hashlib.sha256(json.dumps(cpu, sort_keys=True).encode()).hexdigest()[:16],
        "limits": " ".join(f"{name}={os.environ[name]}" for name in limits if name in os.environ),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "kernels": fingerprint,
    }

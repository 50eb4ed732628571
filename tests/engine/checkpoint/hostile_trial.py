"""Drives `hostile_child`: what became of hostile checkpoints, one by one, whatever ends the child."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[3]
SECONDS = 10.0  # of CPU time
_PATIENCE = 60.0  # on a machine with other work; what hangs takes for ever
LARGEST_GROWTH = 400 * 10**6  # bytes, beyond what the process had before; its libraries take more than that
_START = 120.0


@dataclass(frozen=True)
class Ending:
    """What became of a variant.

    Attributes:
        number: of the variant.
        kind: `answered`, `refused`, `bug`, `died` or `hung`.
        text: the answer, or what was said.
        seconds: the CPU time that it took.
        growth: the most memory that it took, in bytes; 0 if unknown.
        trace: of a bug.
    """

    number: int
    kind: str
    text: str
    seconds: float = 0.0
    growth: int = 0
    trace: str = ""


def try_variants(numbers: Sequence[int], folder: Path) -> Iterator[Ending]:
    """Load and ask each of some variants; the child is started again after one that it does not survive."""
    waiting = list(numbers)
    while waiting:
        # Without limits on the address space: memory is measured, and what is only mapped does not count.
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.checkpoint.hostile_child", str(folder)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "DSVL_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            _read_line(child.stdout, _START)
            while waiting:
                child.stdin.write(f"{waiting[0]}\n".encode())
                child.stdin.flush()
                number = waiting.pop(0)
                line = _read_line(child.stdout, _PATIENCE)
                if line is None:
                    yield Ending(number, "hung", f"no answer in {_PATIENCE} s")
                    break
                if not line:
                    yield Ending(number, "died", f"status {child.wait()}")
                    break
                yield Ending(**json.loads(line))
        finally:
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()


def _read_line(pipe: IO[bytes], seconds: float) -> bytes | None:
    """Return the next line, b"" at the end, or None if it does not come in time."""
    end, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            return None
        piece = os.read(pipe.fileno(), 2**16)
        if not piece:
            return b""
        line += piece
    return line

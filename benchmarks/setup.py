"""Shared parts of the full-size benchmarks: their options, and running each candidate in a new process."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.formats import is_known
from benchmarks.limits import Limits, Shape, measure_limits

EXAMPLE = Path(__file__).parents[1] / "examples" / "two-shapes.jpg"
LLAMA_PYTHON, OPENVINO_PYTHON = "DSVL_LLAMA_PYTHON", "DSVL_OPENVINO_PYTHON"

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """llama.cpp or OpenVINO, if another interpreter has it.

    Attributes:
        worker: the module that makes and asks its models.
        python: that interpreter.
        models: the folder where its models are kept.
        checkpoint: whose shape they have.
        threads: for prompts and steps alike.
    """

    worker: str
    python: str
    models: Path
    checkpoint: str
    threads: int

    def make(self, kinds: Iterable[str]) -> None:
        """Write the missing models."""
        self._run("make", "--kinds", *kinds)

    def ask(self, kind: str, prompt_tokens: int, new_tokens: int, repeats: int) -> Figures:
        """Evaluate a prompt and decode steps `repeats` times in a new process."""
        counts = ("--prompt-tokens", str(prompt_tokens), "--new-tokens", str(new_tokens), "--repeats", str(repeats))
        return self._run("ask", "--kind", kind, *counts)

    def _run(self, mode: str, *arguments: str) -> Figures:
        command = [self.python, "-m", f"benchmarks.workers.{self.worker}", mode, self.checkpoint, str(self.models)]
        return read_figures([*command, "--threads", str(self.threads), *arguments], quiet=True)


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured, and with what.

    Attributes:
        checkpoint: a folder, or `tiny`.
        image: a path.
        formats: of dsvl: `bf16`, `fp32` or names of `FORMATS`.
        transformers: the dtypes of transformers, `bf16` or `fp32`: what it documents, and what may be faster.
        threads: of every candidate.
        rounds: how often every candidate is started, one after the other.
        repeats: how often each is measured once it is warm, in one process.
        llama: llama.cpp, or None where it is not installed.
        openvino: likewise; beside the other peers it is asked by `decode` alone.
        results: the file whose section is written; None only prints.
        skipped_formats: a sentence for each format that is left out.
    """

    checkpoint: str
    image: str
    formats: tuple[str, ...]
    transformers: tuple[str, ...]
    threads: int
    rounds: int
    repeats: int
    results: Path | None
    llama: Peer | None
    openvino: Peer | None = None
    skipped_formats: tuple[str, ...] = ()

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Setup:
        """Create a setup from the options of `add_options`."""
        skipped = [f"dsvl has no format {name} yet: skipped" for name in args.formats if not is_known(name)]
        if len(skipped) == len(args.formats):
            raise SystemExit("dsvl has none of these formats: " + ", ".join(args.formats))
        return cls(
            checkpoint=args.checkpoint,
            image=args.image,
            formats=tuple(name for name in args.formats if is_known(name)),
            transformers=tuple(args.transformers),
            threads=args.threads,
            rounds=args.rounds,
            repeats=args.repeats,
            results=args.results,
            llama=find_peer(args, "llama", "llama", LLAMA_PYTHON),
            openvino=find_peer(args, "openvino", "openvino_peer", OPENVINO_PYTHON),
            skipped_formats=tuple(skipped),
        )

    @property
    def skipped(self) -> tuple[str, ...]:
        """Sentences about everything that was skipped."""
        missing = [
            f"{name} is skipped: give {flag}-python (or {variable}) and {flag}-models"
            for name, flag, variable, peer in (
                ("llama.cpp", "--llama", LLAMA_PYTHON, self.llama),
                ("OpenVINO", "--openvino", OPENVINO_PYTHON, self.openvino),
            )
            if peer is None
        ]
        return (*self.skipped_formats, *missing)

    def ours(self, mode: str, format_name: str, *arguments: str) -> Figures:
        """Measure dsvl in a new process."""
        return self._work("ours", mode, self.checkpoint, "--format", format_name, *arguments)

    def baseline(self, mode: str, dtype: str, *arguments: str) -> Figures:
        """Measure transformers in a new process."""
        return self._work("baseline", mode, resolve_folder(self.checkpoint), "--dtype", dtype, *arguments)

    def _work(self, worker: str, mode: str, checkpoint: str, *arguments: str) -> Figures:
        command = [sys.executable, "-m", f"benchmarks.workers.{worker}", mode, checkpoint, self.image]
        counts = ("--threads", str(self.threads), "--repeats", str(self.repeats))
        return read_figures([*command, *counts, *arguments], quiet=True)

    def measure_limits(self) -> tuple[Limits, Shape, str]:
        """Measure the machine, read the model's sizes, and return both with a sentence for the notes."""
        limits = measure_limits(self.threads)
        rates = ", ".join(f"{rate / 1e9:.0f} ({name})" for name, rate in limits.rates.items())
        told = f"measured in this run: memory {limits.bandwidth / 1e9:.1f} GB/s, products of matrices {rates} Gop/s"
        return limits, Shape.read(self.checkpoint), f"{self.threads} threads; {told}"


def add_options(
    parser: argparse.ArgumentParser,
    *,
    rounds: int = 3,
    repeats: int = 1,
    formats: tuple[str, ...] = ("bf16", "int8", "int4"),
) -> None:
    """Declare the options of all benchmarks of a full-size model."""
    parser.add_argument("checkpoint", help="a folder, as `python -m benchmarks.full_size` makes one")
    parser.add_argument("--image", default=str(EXAMPLE))
    parser.add_argument(
        "--formats", nargs="+", default=list(formats), help="bf16, fp32, or as --quantization takes them"
    )
    parser.add_argument(
        "--transformers", nargs="*", choices=("bf16", "fp32"), default=["bf16"], help="its dtypes; none leaves it out"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=rounds, help="starts of every candidate, alternating")
    parser.add_argument("--repeats", type=int, default=repeats, help="measurements in each start")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the section into this file, as RESULTS.md")
    for name, variable in (("llama.cpp", LLAMA_PYTHON), ("OpenVINO", OPENVINO_PYTHON)):
        flag = "--" + name.removesuffix(".cpp").lower()
        parser.add_argument(f"{flag}-python", metavar="PATH", help=f"interpreter that has {name}; else {variable}")
        parser.add_argument(f"{flag}-models", type=Path, metavar="FOLDER", help="where its models are kept or made")


def find_peer(args: argparse.Namespace, name: str, worker: str, variable: str) -> Peer | None:
    """Find llama.cpp or OpenVINO where the options or the environment say it is."""
    python = getattr(args, f"{name}_python") or os.environ.get(variable)
    models = getattr(args, f"{name}_models")
    if not python or models is None:
        return None
    return Peer(worker, python, models, resolve_folder(args.checkpoint), args.threads)


def resolve_folder(checkpoint: str) -> str:
    """Return the folder of a checkpoint; peers do not know `tiny`."""
    from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER

    return str(EMBEDDED_FOLDER) if checkpoint == "tiny" else checkpoint


def read_figures(command: list[str], *, quiet: bool = False) -> Figures:
    """Run a worker and read the last line that it prints.

    Raises:
        SystemExit: it failed; contains its output.
    """
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(run.stderr or '')[-2000:]}")
    return parse_figures(run.stdout)


def parse_figures(output: str) -> Figures:
    """Parse the last line that is JSON; libraries may print other lines before and after it."""
    for line in reversed(output.splitlines()):
        if line.startswith(("{", "[")):
            found = json.loads(line)
            return found if isinstance(found, dict) else {"made": found}
    raise SystemExit(f"a worker printed no figures:\n{output[-2000:]}")


def median_of(runs: Iterable[Mapping[str, Any]], name: str) -> float:
    """Return the median of a figure over runs."""
    return statistics.median(float(run[name]) for run in runs)


def step_seconds(run: Mapping[str, Any]) -> float:
    """Return the mean seconds of the steps after the first token."""
    return float((run["seconds"] - run["first_seconds"]) / (run["new_tokens"] - 1))

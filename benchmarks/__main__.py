"""`python -m benchmarks [CHECKPOINT]`: runs all benchmarks one after the other and writes benchmarks/RESULTS.md.

CHECKPOINT is a full-size checkpoint with random weights (4 GB), created if the folder is missing. The machine should be
otherwise idle. Options not defined here are passed to every benchmark of a full-size model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.results import RESULTS

DEFAULT_CHECKPOINT = Path(__file__).parents[1] / "build" / "full-1.3b"
FULL_SIZE = ("decode", "describe", "chat_turns", "prefix_cache", "memory", "float16_files", "batch", "context",
             "constrained", "samples")  # fmt: skip
OTHERS = ("startup", "kernels", "agreement", "choices", "schemas", "quantize")
WITHOUT_CHECKPOINT = {"startup", "kernels", "agreement", "choices", "schemas"}


def plan(names: list[str], checkpoint: Path, results: Path, more: list[str]) -> list[list[str]]:
    """Return the arguments of each benchmark to run, in order."""
    commands = []
    for name in names:
        module = f"benchmarks.{name}"
        if name in FULL_SIZE:
            commands.append([module, str(checkpoint), "--results", str(results), *more])
        elif name == "quantize":
            commands.append([module, "cost", str(checkpoint), "--results", str(results)])
            commands.append([module, "skills", "--results", str(results)])
        else:
            commands.append([module, "--results", str(results)])
    return commands


def main() -> int:
    """Run them, and return the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--only", nargs="+", choices=(*OTHERS, *FULL_SIZE), default=[*OTHERS, *FULL_SIZE])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    args, more = parser.parse_known_args()
    if not (args.checkpoint / "config.json").exists() and set(args.only) - WITHOUT_CHECKPOINT:
        args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "benchmarks.full_size", str(args.checkpoint)], check=True)
    failed = []
    for command in plan(args.only, args.checkpoint, args.results, more):
        print(f"\n== {' '.join(command)}", flush=True)
        if subprocess.run([sys.executable, "-m", *command]).returncode:
            failed.append(command[0])
    for name in failed:
        print(f"{name} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.prefix_cache CHECKPOINT`: the prefill of a question that an earlier process has answered.

Runs `dsvl describe --cache` as a process twice, with separate data and cache folders for every round.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

from benchmarks.formats import flags
from benchmarks.results import Goal, Result, Row, publish
from benchmarks.setup import Figures, Setup, add_options, median_of, parse_figures

GOAL = Goal("at most", 0.1)
FLAG = "--cache"


def has_flag() -> bool:
    """Whether `dsvl describe` knows the flag."""
    from typer.main import get_command

    from dsvl_cli.cli import app

    describe = get_command(app).commands["describe"]  # type: ignore[attr-defined]
    return any(FLAG in option.opts for option in describe.params)


def run_once(setup: Setup, name: str, folder: str) -> Figures:
    """Run `dsvl describe` for one token, and return its stats."""
    command = [sys.executable, "-m", "dsvl_cli", "describe", setup.image, "--model", setup.checkpoint, FLAG]
    options = ("--json", "--max-new-tokens", "1", "--threads", str(setup.threads), "--device", "cpu", "--offline")
    variables = {**os.environ, "XDG_CACHE_HOME": folder, "DSVL_CACHE_DIR": folder, "DSVL_DATA_DIR": folder}
    run = subprocess.run([*command, *options, *flags(name)], capture_output=True, text=True, env=variables)
    if run.returncode:
        raise SystemExit(f"dsvl describe {FLAG} failed:\n{run.stderr[-2000:]}")
    stats: Figures = parse_figures(run.stdout)["stats"]
    return stats


def make_rows(runs: dict[str, list[Figures]], formats: tuple[str, ...]) -> list[Row]:
    """Compare the second process with the first."""
    return [
        Row(
            f"prefill of a question seen before, {name}", median_of(runs[f"again {name}"], "prompt_seconds"), "s",
            "the first time", median_of(runs[f"first {name}"], "prompt_seconds"), GOAL,
        )
        for name in formats
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    setup = Setup.from_arguments(parser.parse_args())
    if not has_flag():
        print(f"dsvl describe has no {FLAG} yet: prefix_cache is skipped")
        return
    runs: dict[str, list[Figures]] = {}
    for _ in range(setup.rounds):
        for name in setup.formats:
            with tempfile.TemporaryDirectory() as folder:
                runs.setdefault(f"first {name}", []).append(run_once(setup, name, folder))
                runs.setdefault(f"again {name}", []).append(run_once(setup, name, folder))
    cached = {run["cached_tokens"] for name, found in runs.items() if name.startswith("again") for run in found}
    notes = [
        f"{setup.threads} threads, {setup.rounds} rounds",
        f"tokens from the cache: {', '.join(map(str, sorted(cached)))}",
        *setup.skipped_formats,
    ]
    rows = make_rows(runs, setup.formats)
    publish(Result("prefix_cache", "A question seen in an earlier process", rows, notes, runs), setup.results)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.describe CHECKPOINT`: one picture and 100 new tokens, from the question to the last word.

Measured with the model loaded, compared with the documented use of transformers and with llama.cpp's prefill and decode
steps (plus our image encoding, as it has none); and as whole processes, `dsvl describe` compared with a transformers
script. `--parts` selects one of the two.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.asking import DOCUMENTED, Asked, ask_all
from benchmarks.cpu import detect_kind
from benchmarks.formats import UNQUANTIZED, flags, llama_kind, width
from benchmarks.goals import Goals, goals_for
from benchmarks.limits import Limits, Shape
from benchmarks.results import Result, Row, publish
from benchmarks.setup import Figures, Setup, add_options, median_of, parse_figures, resolve_folder
from benchmarks.startup import run_python

PARTS = ("imports", "load", "prefill", "decode")
IMPORTS = "import dsvl_cli.app.describe, dsvl_cli.engine.model"  # what `dsvl describe` imports, torch with it


def make_rows(
    asked: Asked, formats: tuple[str, ...], limits: Limits, shape: Shape, new_tokens: int, goals: Goals
) -> list[Row]:
    """Compare each format with both peers, and the fastest with q4_0 as well."""
    wholes = {name: asked.whole(f"dsvl {name}") or 0.0 for name in formats}
    best = min(wholes, key=lambda name: wholes[name])
    rows = []
    for name, whole in wholes.items():
        what = f"question to last word, {name}" + (" (the fastest)" if name == best else "")
        limit = shape.answer_seconds(limits, name, asked.prompt_tokens, new_tokens)
        rows += [Row(what, whole, "s", other, asked.whole(other), None, limit) for other in asked.transformers]
        kinds = [llama_kind(name)] if llama_kind(name) == "q4_0" or name != best else [llama_kind(name), "q4_0"]
        for kind in kinds:
            seconds = asked.whole(f"llama.cpp {kind}")
            if seconds is None:
                continue
            reference = seconds + asked.picture()
            goal = goals.answer_llama.get(width(name)) if kind == "q4_0" else None
            rows.append(Row(what, whole, "s", f"llama.cpp {kind} + our picture", reference, goal, limit))
    return rows


def run_ours(setup: Setup, name: str, new_tokens: int) -> Figures:
    """Run `dsvl describe` as a process, and return the seconds of the whole and of its parts."""
    command = [sys.executable, "-m", "dsvl_cli", "describe", setup.image, "--model", setup.checkpoint, "--json"]
    options = ("--max-new-tokens", str(new_tokens), "--threads", str(setup.threads), "--device", "cpu", "--offline")
    start = time.perf_counter()
    run = subprocess.run([*command, *options, *flags(name)], capture_output=True, text=True)
    whole = time.perf_counter() - start
    if run.returncode:
        raise SystemExit(f"dsvl describe failed:\n{run.stderr[-2000:]}")
    stats = parse_figures(run.stdout)["stats"]
    parts = {"prefill": stats["prompt_seconds"], "decode": stats["generate_seconds"]}
    return {
        "seconds": whole,
        "prompt_tokens": stats["prompt_tokens"],
        "new_tokens": stats["generated_tokens"],
        **parts,
    }


def run_theirs(setup: Setup, dtype: str, new_tokens: int) -> Figures:
    """Run the script for transformers as a process."""
    command = [sys.executable, "-m", "benchmarks.workers.documented", resolve_folder(setup.checkpoint), setup.image]
    options = ("--dtype", UNQUANTIZED[dtype], "--threads", str(setup.threads), "--new-tokens", str(new_tokens))
    start = time.perf_counter()
    run = subprocess.run([*command, *options], capture_output=True, text=True)
    whole = time.perf_counter() - start
    if run.returncode:
        raise SystemExit(f"the script for transformers failed:\n{run.stderr[-2000:]}")
    return {"seconds": whole, **parse_figures(run.stdout)["parts"]}


def read_weights(checkpoint: str) -> None:
    """Read the weights into the page cache."""
    for path in Path(resolve_folder(checkpoint)).glob("*.safetensors"):
        with path.open("rb") as file:
            while file.read(2**24):
                pass


def run_processes(setup: Setup, new_tokens: int) -> dict[str, list[Figures]]:
    """Run whole processes in turn, with a warm page cache and after a first start has filled the caches."""
    for name in setup.formats:
        run_ours(setup, name, 1)
    runs: dict[str, list[Figures]] = {}
    for _ in range(setup.rounds):
        read_weights(setup.checkpoint)
        for dtype in setup.transformers:
            runs.setdefault(f"transformers {dtype}", []).append(run_theirs(setup, dtype, new_tokens))
        runs.setdefault("imports", []).append({"seconds": run_python("-c", IMPORTS)})
        for name in setup.formats:
            read_weights(setup.checkpoint)
            runs.setdefault(name, []).append(run_ours(setup, name, new_tokens))
        print({name: round(found[-1]["seconds"], 2) for name, found in runs.items()}, file=sys.stderr)
    return runs


def make_process_rows(
    runs: dict[str, list[Figures]], formats: tuple[str, ...], limits: Limits, shape: Shape, goals: Goals
) -> list[Row]:
    """Compare whole processes, and list the parts of each of ours; what starting takes has no limit of its own."""
    imports = median_of(runs["imports"], "seconds")
    best = min(formats, key=lambda name: median_of(runs[name], "seconds"))
    others = [name for name in runs if name.startswith("transformers")]
    rows = []
    for name in formats:
        whole, prefill, decode = (median_of(runs[name], part) for part in ("seconds", "prefill", "decode"))
        parts = {"imports": imports, "load": whole - imports - prefill - decode, "prefill": prefill, "decode": decode}
        what = f"process start to end, {name}" + (" (the fastest)" if name == best else "")
        last = runs[name][-1]
        limit = shape.answer_seconds(limits, name, last["prompt_tokens"], last["new_tokens"])
        for other in others:
            goal = goals.process if name == best and other == DOCUMENTED else None
            theirs = median_of(runs[other], "seconds")
            rows.append(Row(what, whole, "s", f"script, {other}", theirs, goal, limit))
            for part in PARTS:
                theirs = median_of(runs[other], part)
                rows.append(Row(f"of it {part}, {name}", parts[part], "s", f"of it, {other}", theirs))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--new-tokens", type=int, default=100)
    parser.add_argument("--parts", nargs="+", choices=("loaded", "process"), default=["loaded", "process"])
    args = parser.parse_args()
    setup = Setup.from_arguments(args)
    limits, shape, told = setup.measure_limits()
    goals = goals_for(detect_kind())
    rows: list[Row] = []
    notes, raw = [told], dict[str, Any]()
    if "loaded" in args.parts:
        asked = ask_all(setup, args.new_tokens)
        rows += make_rows(asked, setup.formats, limits, shape, args.new_tokens, goals)
        notes.append(
            f"{asked.prompt_tokens} prompt tokens, {args.new_tokens} new ones, {setup.rounds} rounds; "
            f"our encoding of the picture takes {asked.picture():.2f} s"
        )
        raw["loaded"] = asked.raw()
    if "process" in args.parts:
        processes = run_processes(setup, args.new_tokens)
        rows += make_process_rows(processes, setup.formats, limits, shape, goals)
        notes += [
            f"processes with a warm page cache; our imports are a process of their own, `{IMPORTS}`; load is the rest",
            "the script for transformers imports no torchao",
        ]
        raw["processes"] = processes
    notes += setup.skipped
    publish(Result("describe", "Describing a picture", rows, notes, raw), setup.results)


if __name__ == "__main__":
    main()

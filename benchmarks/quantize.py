"""The cost of quantizing, compared with transformers, and its effect on the skills of the embedded model.

python -m benchmarks.quantize cost CHECKPOINT [--formats bnb-nf4 bnb-int8] [--threads N] [--results FILE]
python -m benchmarks.quantize skills [--formats ...] [--dtypes float32 ...] [--per-skill 500] [--results FILE]

`cost` runs each method in a new process and measures from after the imports: seconds until the folder is on disk, and
peak anonymous memory (Linux's RssAnon, which excludes memory-mapped files), sampled every 5 ms. The machine should be
otherwise idle.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.anonymous import Peak, read_anonymous
from benchmarks.results import Goal, Result, Row, publish
from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, check_folder
from dsvl_cli.engine.conversion.convert import SHARD_BYTES
from dsvl_cli.engine.machine.plan import DTYPE_BYTES
from dsvl_cli.engine.progress import Silence
from dsvl_cli.engine.quantization.formats import FORMATS, STORED_FORMATS, Recipe, Verdict, find_cell

_WAYS = ("dsvl", "transformers")


def quantize_once(way: str, name: str, source: Path, target: Path, threads: int) -> dict[str, float]:
    """Quantize a checkpoint in this process and measure it, without the imports."""
    import torch

    from dsvl_cli.engine.conversion.convert import quantize_checkpoint
    from dsvl_cli.engine.network.library_logging import import_backend, mute_libraries
    from dsvl_cli.engine.network.model_class import find_model_class, make_skeleton
    from dsvl_cli.engine.quantization.backends import make_quantization_config
    from dsvl_cli.engine.quantization.selection import select_layers

    torch.set_num_threads(threads)
    checkpoint = check_folder(source.name, source)
    recipe = Recipe(FORMATS[name])
    import_backend(recipe.format.package)
    with mute_libraries():
        skeleton = make_skeleton(checkpoint)  # imports the model's class
        config = make_quantization_config(recipe, select_layers(skeleton, recipe), "cpu")
        before, start = read_anonymous(), time.perf_counter()
        with Peak() as peak:
            if way == "dsvl":
                quantize_checkpoint(checkpoint, target, recipe, Silence())
            else:
                model_class = find_model_class(checkpoint.model_type)
                model = model_class.from_pretrained(
                    source, dtype="auto", device_map="cpu", quantization_config=config, local_files_only=True
                )
                model.save_pretrained(target)
                os.sync()  # dsvl brings its files to the disk too
            seconds = time.perf_counter() - start
    written = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    return {"seconds": seconds, "anonymous_bytes": peak.bytes - before, "written_bytes": written}


def measure_cost(source: Path, formats: list[str], threads: int) -> list[dict[str, Any]]:
    """Measure each format both ways, each in a new process."""
    rows = []
    for name in formats:
        for way in _WAYS:
            with tempfile.TemporaryDirectory(dir=source.parent) as folder:
                command = [sys.executable, "-m", "benchmarks.quantize", "once", way, name, str(source), f"{folder}/out"]
                run = subprocess.run(
                    [*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True, check=True
                )
            row = json.loads(run.stdout.splitlines()[-1])
            rows.append({"format": name, "way": way, **row})
    return rows


def describe_cost(runs: list[dict[str, Any]]) -> Result:
    """Compare with the goals: half the time for nf4; memory of 1.25 times the output and one input file."""
    rows = []
    for ours, theirs in zip(runs[::2], runs[1::2], strict=True):
        name = ours["format"]
        goal = Goal("at most", 0.5) if name == "bnb-nf4" else None
        rows.append(Row(f"{name}: time", ours["seconds"], "s", "transformers", theirs["seconds"], goal))
        memory = ours["anonymous_bytes"] / 1e9
        bound = (1.25 * ours["written_bytes"] + SHARD_BYTES) / 1e9
        rows.append(Row(f"{name}: memory", memory, "GB", "transformers", theirs["anonymous_bytes"] / 1e9))
        rows.append(Row("", memory, "GB", "1.25 x written + one file", bound, Goal("at most", 1)))
    notes = ["anonymous memory beyond the imports, and seconds until the folder is on the disk; each way a new process"]
    return Result("quantize cost", "Quantizing", rows, notes, {"runs": runs})


def measure_skills(formats: list[str], dtypes: list[str], per_skill: int) -> dict[tuple[str, str], dict[str, float]]:
    """Measure tiny's skills unquantized (format `source`) and in each cell that works, each in a new process.

    Returns:
        The share of right answers by skill, by format and dtype; all see the same scenes.
    """
    from dsvl_cli.engine.conversion.convert import quantize_checkpoint

    source = check_folder("tiny", EMBEDDED_FOLDER)
    tables = {("source", dtype): _evaluate(["tiny"], dtype, per_skill) for dtype in dtypes}
    for name in formats:
        with tempfile.TemporaryDirectory() as folder:
            model = ["tiny", "--quantization", name]
            if name in STORED_FORMATS:
                quantize_checkpoint(source, Path(folder, "out"), Recipe(FORMATS[name]), Silence())
                model = [f"{folder}/out"]
            for dtype in dtypes:
                if find_cell(name, "cpu", dtype).verdict is Verdict.WORKS:
                    tables[name, dtype] = _evaluate(model, dtype, per_skill)
    return tables


def _evaluate(model: list[str], dtype: str, per_skill: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.skills", *model, "--dtype", dtype]
    run = subprocess.run(
        [*command, "--per-skill", str(per_skill), "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    table: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return table


def describe_skills(tables: dict[tuple[str, str], dict[str, float]], per_skill: int) -> Result:
    """Compare each cell's mean with the source's; 8-bit formats may lose 1 point of it, 4-bit formats 4."""
    skills = len(next(iter(tables.values())))
    rows, notes = [], [f"right answers over the same {per_skill} scenes of each of {skills} skills"]
    for (name, dtype), table in tables.items():
        if name == "source":
            continue
        source = tables["source", dtype]
        before, after = 100 * mean(source.values()), 100 * mean(table.values())
        rows.append(Row(f"{name}, {dtype}: mean of the skills", after, "%", "tiny as it is", before))
        rows.append(Row("what was lost", before - after, "%", goal=Goal("under", {4: 4, 8: 1}[FORMATS[name].bits])))
        changes = [f"{skill} {change:+.1f}" for skill in source if (change := 100 * (table[skill] - source[skill]))]
        notes.append(f"{name}, {dtype}, in points: {', '.join(changes) or 'nothing'}; the other skills are unchanged")
    raw = {f"{name}, {dtype}": table for (name, dtype), table in tables.items()}
    return Result("quantize skills", "Skills of quantized models", rows, notes, {"skills": raw})


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("cost")
    cost.add_argument("checkpoint", type=Path)
    skills = commands.add_parser("skills")
    skills.add_argument("--per-skill", type=int, default=500)
    skills.add_argument("--dtypes", nargs="+", choices=DTYPE_BYTES, default=list(DTYPE_BYTES))
    once = commands.add_parser("once")
    for name in ("way", "format"):
        once.add_argument(name)
    for name in ("source", "target"):
        once.add_argument(name, type=Path)
    on_cpu = [name for name in FORMATS if find_cell(name, "cpu", "bfloat16").verdict is Verdict.WORKS]
    stored = [name for name in on_cpu if name in STORED_FORMATS]
    for command, formats in ((cost, stored), (skills, on_cpu)):
        command.add_argument("--formats", nargs="+", choices=formats, default=formats)
        command.add_argument("--results", type=Path, metavar="FILE", help="write the section into this file")
    for command in (cost, once):
        command.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.command == "once":
        print(json.dumps(quantize_once(options.way, options.format, options.source, options.target, options.threads)))
        return
    if options.command == "cost":
        runs = measure_cost(options.checkpoint.resolve(), options.formats, options.threads)
        publish(describe_cost(runs), options.results)
        return
    tables = measure_skills(options.formats, options.dtypes, options.per_skill)
    publish(describe_skills(tables, options.per_skill), options.results)


if __name__ == "__main__":
    main()

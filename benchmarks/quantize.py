"""What quantizing costs, beside transformers' own way, and what it costs tiny's skills.

python -m benchmarks.quantize cost CHECKPOINT [--formats bnb-nf4 bnb-int8] [--threads N] [--json]
python -m benchmarks.quantize skills [--formats ...] [--dtype auto] [--per-skill 500] [--json]

`cost` runs each way in a process of its own, and counts from where everything is imported: seconds until the folder is
on the disk, and the most anonymous memory (Linux's RssAnon; files that are mapped into memory are not in it), looked
at every 5 ms. Stop every other work on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dsvl_cli.engine.checkpoint import EMBEDDED_FOLDER, check_folder
from dsvl_cli.engine.progress import Silence
from dsvl_cli.engine.quantization import FORMATS, Recipe

_WAYS = ("dsvl", "transformers")
_POLL_SECONDS = 0.005


def read_anonymous() -> int:
    """Give the bytes of anonymous memory that this process holds. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status tells no RssAnon")


class _Peak(threading.Thread):
    """Watches the anonymous memory of this process until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            self.bytes = max(self.bytes, read_anonymous())

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self.bytes


def quantize_once(way: str, name: str, source: Path, target: Path, threads: int) -> dict[str, float]:
    """Quantize a checkpoint in this process and measure it; the imports are not counted."""
    import torch

    from dsvl_cli.engine.chatter import import_backend, mute_libraries
    from dsvl_cli.engine.layers import find_model_class, make_quantization_config, make_skeleton, select_layers
    from dsvl_cli.engine.requantize import quantize_checkpoint

    torch.set_num_threads(threads)
    checkpoint = check_folder(source.name, source)
    recipe = Recipe(FORMATS[name])
    import_backend(recipe.format.package)
    with mute_libraries():
        skeleton = make_skeleton(checkpoint)  # imports the model's class
        config = make_quantization_config(recipe, select_layers(skeleton, recipe), "cpu")
        before, peak = read_anonymous(), _Peak()
        peak.start()
        start = time.perf_counter()
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
    return {"seconds": seconds, "anonymous_bytes": peak.stop() - before, "written_bytes": written}


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
            rows.append({"format": name, "way": way, **row, "ratio": row["anonymous_bytes"] / row["written_bytes"]})
    return rows


def measure_skills(formats: list[str], dtype: str, per_skill: int) -> dict[str, dict[str, float]]:
    """Measure tiny's skills before and after, on the same scenes, each in a new process."""
    from dsvl_cli.engine.requantize import quantize_checkpoint

    source = check_folder("tiny", EMBEDDED_FOLDER)
    tables = {"source": _evaluate(EMBEDDED_FOLDER, dtype, per_skill)}
    for name in formats:
        folder = Path(tempfile.mkdtemp())
        try:
            quantize_checkpoint(source, folder / "out", Recipe(FORMATS[name]), Silence())
            tables[name] = _evaluate(folder / "out", dtype, per_skill)
        finally:
            shutil.rmtree(folder)
    return tables


def _evaluate(folder: Path, dtype: str, per_skill: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.skills", str(folder), "--dtype", dtype]
    run = subprocess.run(
        [*command, "--per-skill", str(per_skill), "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    table: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return table


def _print_cost(rows: list[dict[str, Any]]) -> None:
    print("| format | way | seconds | anonymous memory | written | memory / written |\n|---|---|---|---|---|---|")
    for row in rows:
        sizes = f"{row['anonymous_bytes'] / 1e9:.2f} GB | {row['written_bytes'] / 1e9:.2f} GB | {row['ratio']:.2f}"
        print(f"| {row['format']} | {row['way']} | {row['seconds']:.1f} | {sizes} |")


def _print_skills(tables: dict[str, dict[str, float]]) -> None:
    source = tables.pop("source")
    print(f"| skill | source | {' | '.join(tables)} |\n|---|---|{'---|' * len(tables)}")
    for skill, share in source.items():
        changes = " | ".join(f"{100 * (table[skill] - share):+.1f}" for table in tables.values())
        print(f"| {skill} | {100 * share:.1f} % | {changes} |")
    means = [sum(table.values()) / len(table) for table in (source, *tables.values())]
    print(f"| mean | {100 * means[0]:.1f} % | {' | '.join(f'{100 * (mean - means[0]):+.1f}' for mean in means[1:])} |")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("cost")
    cost.add_argument("checkpoint", type=Path)
    skills = commands.add_parser("skills")
    skills.add_argument("--per-skill", type=int, default=500)
    skills.add_argument("--dtype", default="auto")
    once = commands.add_parser("once")
    for name in ("way", "format"):
        once.add_argument(name)
    for name in ("source", "target"):
        once.add_argument(name, type=Path)
    on_cpu = [name for name in FORMATS if name != "torchao-int4"]
    for command in (cost, skills):
        command.add_argument("--formats", nargs="+", choices=on_cpu, default=on_cpu)
        command.add_argument("--json", action="store_true")
    for command in (cost, once):
        command.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.command == "once":
        print(json.dumps(quantize_once(options.way, options.format, options.source, options.target, options.threads)))
        return
    if options.command == "cost":
        rows = measure_cost(options.checkpoint.resolve(), options.formats, options.threads)
        print(json.dumps(rows)) if options.json else _print_cost(rows)
        return
    tables = measure_skills(options.formats, options.dtype, options.per_skill)
    print(json.dumps(tables)) if options.json else _print_skills(tables)


if __name__ == "__main__":
    main()

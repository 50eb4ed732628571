"""`python -m benchmarks.float16_files CHECKPOINT`: weights stored in float16 compared with the same in bfloat16.

The first run writes a float16 copy beside the checkpoint, with the names used by the public checkpoints. Each file is
loaded in its stored dtype, as with `--dtype auto`, and answers a question in a new process. Anonymous memory is Linux's
RssAnon, which excludes memory-mapped weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.describe import read_weights
from benchmarks.memory import answering_bytes
from benchmarks.results import Goal, Result, Row, publish
from benchmarks.setup import Figures, Setup, add_options, median_of, resolve_folder

LOAD_GOAL, MEMORY_GOAL, STEP_GOAL = Goal("at most", 1.1), Goal("at most", 1.05), Goal("at most", 1.1)


def write_float16(source: Path, target: Path) -> None:
    """Copy a checkpoint with its weights in float16, under the names that transformers 4.55 used."""
    import torch
    from safetensors.torch import load_file, save_file

    target.mkdir()
    for path in source.iterdir():
        if path.suffix == ".safetensors":
            tensors = {
                name.replace("model.vision_model.", "model.vision_model.vision_model.", 1): tensor.to(torch.float16)
                for name, tensor in load_file(path).items()
            }
            save_file(tensors, target / path.name, {"format": "pt"})
        elif path.name.endswith(".index.json"):
            text = path.read_text(encoding="utf-8")
            (target / path.name).write_text(
                text.replace('"model.vision_model.', '"model.vision_model.vision_model.'), encoding="utf-8"
            )
        elif path.is_file():
            shutil.copy(path, target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config.pop("dtype", None)
    (target / "config.json").write_text(json.dumps({**config, "torch_dtype": "float16"}), encoding="utf-8")


def make_rows(runs: dict[str, list[Figures]]) -> list[Row]:
    """Compare the two."""

    def median(name: str, figure: str) -> float:
        return median_of(runs[name], figure)

    def peak(name: str) -> float:
        return median_of(({"bytes": answering_bytes(run)} for run in runs[name]), "bytes") / 1e9

    def step(name: str) -> float:
        return 1000 * median_of((run["runs"][0] for run in runs[name]), "median_step_seconds")

    def first(name: str) -> float:
        return median_of((run["runs"][0] for run in runs[name]), "first_seconds")

    wide, narrow = "bf16", "fp16"
    return [
        Row("load, float16 file", median(narrow, "load_seconds"), "s", "bfloat16 file", median(wide, "load_seconds"),
            LOAD_GOAL),
        Row("most anonymous memory, float16 file", peak(narrow), "GB", "bfloat16 file", peak(wide), MEMORY_GOAL),
        Row("decode step, float16 file", step(narrow), "ms", "bfloat16 file", step(wide), STEP_GOAL),
        Row("first token, float16 file", first(narrow), "s", "bfloat16 file", first(wide)),
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--new-tokens", type=int, default=16)
    args = parser.parse_args()
    setup = Setup.from_arguments(args)
    source = Path(resolve_folder(setup.checkpoint))
    copy = source.with_name(f"{source.name}-float16")
    if not copy.exists():
        write_float16(source, copy)
    runs: dict[str, list[Figures]] = {}
    for _ in range(setup.rounds):
        for name, folder in (("bf16", source), ("fp16", copy)):
            read_weights(str(folder))
            found = replace(setup, checkpoint=str(folder)).ours("memory", name, "--new-tokens", str(args.new_tokens))
            runs.setdefault(name, []).append(found)
    notes = [f"{setup.threads} threads, {setup.rounds} rounds, warm page cache, {args.new_tokens} tokens an answer"]
    publish(Result("float16_files", "Weights stored in float16", make_rows(runs), notes, runs), setup.results)


if __name__ == "__main__":
    main()

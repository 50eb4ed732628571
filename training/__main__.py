"""Train the embedded checkpoint from scratch.

    python -m training [--run DIR] [--out DIR] [--processes 2] [--seed 0]

The vision and text stages run in parallel, then the joint stage runs in `--processes` processes of one thread each.
Every stage saves its state in the run's folder: after a signal or a power failure, the same command resumes from it.
A file `PAUSE` in that folder pauses the training until it is deleted.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from training.architecture import build_model, build_processor, export_checkpoint
from training.evaluate import TINY
from training.joint_stage import train_joint
from training.run_state import RunFolder
from training.text_stage import Mouth, train_text
from training.tokenizer import build_tokenizer
from training.vision_stage import Eyes, train_vision

VISION_STEPS, TEXT_STEPS, JOINT_STEPS = 965, 777, 2310


def _run_stage(options: argparse.Namespace) -> None:
    """Run a stage, or one process's share of it."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer(options.seed)
    model = build_model(tokenizer)
    run = RunFolder(options.run)
    if options.stage == "vision":
        train_vision(model, run, VISION_STEPS, options.seed)
    elif options.stage == "text":
        train_text(model, tokenizer, run, TEXT_STEPS, options.seed)
    else:
        vision, text = run.load("vision.pt"), run.load("text.pt")
        if vision is None or text is None:
            raise SystemExit("the joint stage needs vision.pt and text.pt, which do not exist")
        Eyes(model).load_state_dict(vision["eyes"])
        Mouth(model).load_state_dict(text["mouth"])
        train_joint(model, tokenizer, run, JOINT_STEPS, options.seed, options.rank, options.processes)


def _start(options: argparse.Namespace, stage: str, rank: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "training", "--stage", stage, "--rank", str(rank), "--run", str(options.run)]
    command += ["--processes", str(options.processes), "--seed", str(options.seed)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _wait(children: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all processes; a failure or a signal terminates the others, which save their state."""

    def end(*_: object) -> None:
        for child in children:
            child.terminate()

    before = signal.signal(signal.SIGTERM, end)
    try:
        failed = [child.args for child in children if child.wait() != 0]
    except BaseException:
        end()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if failed:
        raise SystemExit(f"failed: {failed}")


def _steps_done(run: RunFolder, name: str) -> int:
    state = run.load(name)
    return 0 if state is None else int(state["step"])


def main() -> None:
    """Run all stages and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("training-run"), help="folder of the state files")
    parser.add_argument("--out", type=Path, default=TINY, help="folder of the checkpoint")
    parser.add_argument("--processes", type=int, default=2, help="of the joint stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", choices=["vision", "text", "joint", "export"], help="one stage only")
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage in ("vision", "text", "joint"):
        _run_stage(options)
        return
    run = RunFolder(options.run)
    if options.stage is None:
        _wait([_start(options, "vision"), _start(options, "text")])
        if _steps_done(run, "vision.pt") < VISION_STEPS or _steps_done(run, "text.pt") < TEXT_STEPS:
            raise SystemExit("stopped; run the same command again to resume")
        (run.path / "meeting").unlink(missing_ok=True)
        _wait([_start(options, "joint", rank) for rank in range(options.processes)])
    state = run.load("joint.pt")
    if state is None:
        raise SystemExit(f"no joint.pt in {run.path}")
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer(options.seed)
    model = build_model(tokenizer)
    model.load_state_dict(state["model"])
    export_checkpoint(model, build_processor(tokenizer), options.out)
    print(f"{options.out}: after {state['step']} joint steps of {JOINT_STEPS}")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.startup`: startup time.

Compares `dsvl --help` and completion with a Typer app of four empty commands, and the time to the first word of `tiny`
about a picture with the bare import of torch and the model class.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from benchmarks.results import Goal, Result, Row, publish
from benchmarks.setup import EXAMPLE
from benchmarks.timing import alternate, timed

NOTHING = '''
import typer
app = typer.Typer()
@app.command()
def one(name: str = "x"):
    """The first."""
@app.command()
def two(name: str = "x"):
    """The second."""
@app.command()
def three(name: str = "x"):
    """The third."""
@app.command()
def four(name: str = "x"):
    """The fourth."""
app(prog_name="nothing")
'''
IMPORTS = (
    "import sys; sys.modules['torchao'] = None; import torch; "
    "from transformers.models.deepseek_vl.modeling_deepseek_vl import DeepseekVLForConditionalGeneration"
)
COMPLETION = Path(__file__).resolve().parent.parent / "completions" / "dsvl.bash"
HELP_GOAL, FIRST_WORD_GOAL = Goal("at most", 1.3), Goal("under", 0.7)


def run_python(*arguments: str, environment: Mapping[str, str] | None = None) -> float:
    """Run Python until it exits, and return the seconds."""
    command = [sys.executable, *arguments]
    variables = {**os.environ, **(environment or {})}
    return timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=variables))


def complete_by_script() -> float:
    """Start bash with our completion script, complete the name of a command, and return the seconds."""
    script = 'source "$1"; COMP_WORDS=(dsvl ""); COMP_CWORD=1; _dsvl; [[ " ${COMPREPLY[*]} " == *" chat "* ]]'
    command = ["bash", "--norc", "-c", script, "bash", str(COMPLETION)]
    return timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))


def run_imports() -> float:
    """Run a process that imports torch and the model class, and return the seconds."""
    return run_python("-c", IMPORTS)


def wait_for_word(*arguments: str) -> float:
    """Start `dsvl`, and return the seconds until the first byte of its answer."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "dsvl_cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise SystemExit("dsvl gave no answer")
        seconds = time.perf_counter() - start
        process.stdout.read()
    return seconds


def make_rows(seconds: Mapping[str, list[float]]) -> list[Row]:
    """Compare medians."""
    medians = {name: median(runs) for name, runs in seconds.items()}
    nothing, completing, imports = "a Typer app of four commands", "its completion", "bare imports"
    rows = [
        Row(name, 1e3 * medians[name], "ms", peer, 1e3 * medians[peer], goal)
        for name, peer, goal in (
            ("dsvl --help", nothing, HELP_GOAL),
            ("completion of dsvl", completing, HELP_GOAL),
            ("dsvl describe --help", nothing, None),
            ("dsvl --version", nothing, None),
        )
    ]
    word = medians["first word of tiny"]
    rows.append(
        Row("process start to first word of tiny", word, "s", "import of torch and the model's class", medians[imports])
    )
    rows.append(Row("the same beyond that import", word - medians[imports], "s", goal=FIRST_WORD_GOAL))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--word-rounds", type=int, default=5, help="rounds of what imports torch")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the section into this file, as RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "nothing.py"
        app.write_text(NOTHING)

        def complete_by_typer() -> float:
            variables = {"_NOTHING_COMPLETE": "complete_bash", "COMP_WORDS": "nothing ", "COMP_CWORD": "1"}
            return run_python(str(app), environment=variables)

        light: dict[str, Callable[[], float]] = {
            "a Typer app of four commands": lambda: run_python(str(app), "--help"),
            "dsvl --help": lambda: run_python("-m", "dsvl_cli", "--help"),
            "dsvl describe --help": lambda: run_python("-m", "dsvl_cli", "describe", "--help"),
            "dsvl --version": lambda: run_python("-m", "dsvl_cli", "--version"),
            "its completion": complete_by_typer,
            "completion of dsvl": complete_by_script,
        }
        heavy: dict[str, Callable[[], float]] = {
            "bare imports": run_imports,
            "first word of tiny": lambda: wait_for_word(
                "describe", str(EXAMPLE), "--model", "tiny", "--plain", "--offline"
            ),
        }
        for warm_up in (*light.values(), *heavy.values()):
            warm_up()
        seconds = {**alternate(light, args.rounds), **alternate(heavy, args.word_rounds)}
    notes = [f"{args.rounds} and {args.word_rounds} rounds; the import is `{IMPORTS}`"]
    publish(Result("startup", "Starting", make_rows(seconds), notes, {"seconds": seconds}), args.results)


if __name__ == "__main__":
    main()

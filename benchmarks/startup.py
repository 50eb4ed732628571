"""`python -m benchmarks.startup`: what `dsvl --help` costs beside a Typer app of four commands that do nothing."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.timing import alternate, report, timed

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
app()
'''


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "nothing.py"
        app.write_text(NOTHING)

        def start(*arguments: str) -> float:
            return timed(lambda: subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True))

        candidates: dict[str, Callable[[], float]] = {
            "a Typer app of four commands": lambda: start(str(app), "--help"),
            "dsvl --help": lambda: start("-m", "dsvl_cli", "--help"),
            "dsvl describe --help": lambda: start("-m", "dsvl_cli", "describe", "--help"),
            "dsvl --version": lambda: start("-m", "dsvl_cli", "--version"),
        }
        for warm_up in candidates.values():
            warm_up()
        report("startup", alternate(candidates, rounds), "a Typer app of four commands")


if __name__ == "__main__":
    main()

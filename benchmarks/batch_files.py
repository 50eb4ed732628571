"""`python -m benchmarks.batch_files`: the overhead of `dsvl batch` besides its model, over 100,000 small files.

Uses a fake model that answers immediately. Measures the time to the first row, the time until a resumed run writes its
next row after a kill, peak memory, and the time per row in each fifth of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.timing import describe_machine
from tests.batch.fakes import png

_POLL_SECONDS = 0.02


@dataclass
class Watched:
    """A run observed while it was writing.

    Attributes:
        marks: pairs of seconds since the start and the size of the output.
        peak_mebibytes: peak resident memory.
    """

    marks: list[tuple[float, int]] = field(default_factory=list)
    peak_mebibytes: float = 0.0
    seconds: float = 0.0

    @property
    def first_row(self) -> float:
        """Seconds until the output first grew."""
        return next((at for at, size in self.marks if size > self.marks[0][1]), self.seconds)

    def fifths(self) -> list[float]:
        """Seconds for each fifth of the output."""
        begin, end = self.marks[0][1], self.marks[-1][1]
        times = []
        for part in range(6):
            wanted = begin + (end - begin) * part / 5
            times.append(self.first_row if part == 0 else next(at for at, size in self.marks if size >= wanted))
        return [after - before for before, after in pairwise(times)]


def run(folder: Path, out: Path, kill_at: int | None = None) -> Watched:
    """Run over the folder, and kill the run when the output has `kill_at` bytes."""
    watched = Watched()
    begin = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "tests.batch.child",
        '{"sync_seconds": 1}',
        str(folder),
        "-r",
        "-o",
        str(out),
        "-q",
    ]
    child = subprocess.Popen(command)
    while True:
        size = out.stat().st_size if out.exists() else 0
        watched.marks.append((time.perf_counter() - begin, size))
        if kill_at is not None and size >= kill_at:
            child.kill()
            kill_at = None
        pid, _, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            watched.peak_mebibytes = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
            break
        time.sleep(_POLL_SECONDS)
    watched.seconds = time.perf_counter() - begin
    watched.marks.append((watched.seconds, out.stat().st_size))
    child.returncode = 0  # it was waited for above
    return watched


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    count = parser.parse_args().files
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "photos"
        for number in range(count):
            path = folder / f"{number // 1000:03d}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
        whole = run(folder, Path(parent) / "whole.jsonl")
        size = whole.marks[-1][1]
        run(folder, Path(parent) / "out.jsonl", kill_at=size // 2)
        resumed = run(folder, Path(parent) / "out.jsonl")
        again = run(folder, Path(parent) / "out.jsonl")
        ids = {json.loads(line)["id"] for line in (Path(parent) / "out.jsonl").open("rb")}
    fifths = whole.fifths()
    figures = {
        "rows": len(ids),
        "first row, s": round(whole.first_row, 2),
        "whole run, s": round(whole.seconds, 1),
        "peak memory, MiB": round(whole.peak_mebibytes),
        "first row after a kill at one half, s": round(resumed.first_row, 2),
        "peak memory after it, MiB": round(resumed.peak_mebibytes),
        "a run with nothing to do, s": round(again.seconds, 2),
        "a row in each fifth, ms": [round(5000 * seconds / count, 3) for seconds in fifths],
    }
    for name, value in figures.items():
        print(f"{name:40} {value}")
    print(json.dumps({**figures, **describe_machine()}))
    if len(ids) != count:
        sys.exit(f"{len(ids)} rows of {count} files")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.cluster`: what `dsvl batch --engine ray` costs besides its model, by the number of rows.

A local Ray works through manifests of many rows with captioners that answer at once: rows a minute, the memory of the
driver, and the size of the checkpoint. Each size is run to its half, killed and resumed, unless --whole is given.
Needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import psutil
from PIL import Image

from benchmarks.results import Result, Row, publish
from dsvl_cli.batch.cluster.actor import Caption, Work
from dsvl_cli.batch.cluster.job import ClusterJob
from dsvl_cli.batch.cluster.manifest import Entry, Manifest
from dsvl_cli.batch.cluster.output import ClusterOutput
from dsvl_cli.batch.cluster.place import Place
from dsvl_cli.batch.cluster.progress import start_gathering
from dsvl_cli.batch.cluster.reading import Reading
from dsvl_cli.batch.cluster.start import choose_workers, started
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.row import ONLY, Answer
from dsvl_cli.batch.row import Row as BatchRow
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.engine.pictures.access import Access

_SETTINGS = Settings("fake", "fake-1", {ONLY: "What is it?"}, None, {"seed": None}, {}, format="parquet")
_ANSWER = Answer("A red circle on a white background, as drawn with a compass.", "stop", 600, 14, 0.5)


def make_fake(work: Work, _: Callable[[Mapping[str, str], Item], Mapping[str, str]]) -> Caption:
    """Make a captioner that reads its pictures and answers at once."""

    def caption(items: Iterable[Item]) -> Iterator[BatchRow]:
        for item in items:
            item.read()
            yield BatchRow(item.id, item.path, work.settings.prompts, {ONLY: _ANSWER}, "fake", 8, 8, "0" * 64)

    return caption


def make_entries(count: int) -> Iterator[Entry]:
    """Yield entries of small pictures that are in their addresses, with ids as long as those in a bucket."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    for number in range(count):
        name = f"s3://bucket/photos/{number // 1000:06d}/{number:010d}.png"
        yield Entry(0, "data", name, name, f"data:image/png;n={number};base64,{data}")


def run_job(folder: Path, workers: int, rows_per_shard: int) -> dict[str, float]:
    """Run a job over a manifest; returns seconds and bytes."""
    began_at = time.monotonic()
    with ClusterOutput(Place.open(str(folder / "out")), _SETTINGS) as output:
        manifest = Manifest(output.manifest)
        manifest.load()
        before = output.count_committed()
        peak, is_done = [0], threading.Event()

        def watch() -> None:
            process = psutil.Process()
            while not is_done.wait(0.5):
                peak[0] = max(peak[0], process.memory_info().rss)

        threading.Thread(target=watch, daemon=True).start()
        with started("local", (workers, workers), None, verbose=False) as ray:
            fitting = choose_workers((workers, workers), 0.0, None, ray.cluster_resources())
            work = Work(LoadOptions("tiny"), _SETTINGS, None, output.trials, make_fake)
            reading = Reading(Access(), None, _SETTINGS.prompts, ".txt")
            ready_at = time.monotonic()
            ClusterJob(output, reading, work, fitting, rows_per_shard, 0).run(ray, start_gathering(ray))
            seconds = time.monotonic() - ready_at
        is_done.set()
        committed = output.count_committed()
        assert committed == manifest.count == output.count().total()
        return {
            "rows": committed - before, "seconds": seconds, "start": ready_at - began_at, "driver_bytes": peak[0],
            "checkpoint_bytes": output.checkpoint_bytes(), "shards": len(output.shards()),
        }  # fmt: skip


def measure(count: int, args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Make a manifest, and run a job over it in a process of its own, which is killed half way and started again."""
    with ClusterOutput(Place.open(str(folder / "out")), _SETTINGS) as output:
        began_at = time.monotonic()
        Manifest(output.manifest).extend(make_entries(count))
        manifest_seconds = time.monotonic() - began_at
    command = [
        sys.executable, "-m", "benchmarks.cluster", "--job", str(folder), "--workers", str(args.workers),
        "--rows-per-shard", str(args.rows_per_shard),
    ]  # fmt: skip
    if not args.whole:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(os.listdir(folder / "out")) * args.rows_per_shard < count / 2:
            time.sleep(0.5)
        process.kill()
        process.wait()
        time.sleep(3)  # Ray's processes notice
    output_text = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return {**json.loads(output_text.splitlines()[-1]), "manifest_seconds": manifest_seconds}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--whole", action="store_true", help="without a kill at one half")
    parser.add_argument("--folder", type=Path, help="where to keep what is written; by default it is removed")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job is not None:
        print(json.dumps(run_job(args.job, args.workers, args.rows_per_shard)))
        return
    rows: list[Row] = []
    notes: list[str] = []
    runs: dict[str, list[dict[str, float]]] = {}
    for count in args.rows:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            found = measure(count, args, Path(folder))
        runs[f"{count}"] = [found]
        rows += [
            Row(f"{count:,} rows, of them in the measured run", 60 * found["rows"] / found["seconds"], "/min"),
            Row(f"{count:,} rows, memory of the driver", found["driver_bytes"] / 1e9, "GB"),
            Row(f"{count:,} rows, making the manifest", found["manifest_seconds"], "s"),
        ]
        notes.append(
            f"{count:,} rows: {found['rows']:,.0f} in the measured run, checkpoint of {found['checkpoint_bytes']:,.0f} "
            f"bytes in {found['shards']:,.0f} files, {found['checkpoint_bytes'] / count:.1f} a row"
        )
    notes.append(f"{args.workers} workers on one machine; shards of {args.rows_per_shard:,} rows")
    if not args.whole:
        notes.append("each job was killed at one half; measured is the run that resumed it")
    publish(Result("cluster", "Rows on a cluster", rows, notes, runs), args.results)


if __name__ == "__main__":
    main()

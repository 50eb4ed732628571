"""A job on Ray itself, with fake workers: kinds of sources, errors, pictures that end their process, resuming.

Needs the extra `ray`; `.ci/run` installs it in an environment of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dsvl_cli.app.batch.job import Job
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.errors import DsvlError, SomeFailed
from dsvl_cli.terminal.console import Console, Environment
from tests.app.batch.fake_run import fake_batch
from tests.app.batch.jobs import options
from tests.batch.cluster.workers import make_fake
from tests.batch.fakes import fill, png

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("default"),  # those of Ray are not ours
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray of one node, which all tests here share."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 6, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(cluster: str, make: Any = make_fake, **values: Any) -> str:
    """Run a job; returns how it ended."""
    from dsvl_cli.app.batch.cluster.run import make_rows_on_cluster

    asked = {"engine": "ray", "ray_address": cluster, "workers": "1", "out": "out", **values}
    job = Job(options(**asked), LoadOptions("tiny"), SamplingParams())
    try:
        make_rows_on_cluster(Console(Environment.system()), job, make)
    except SomeFailed:
        return "some failed"
    return "done"


def rows(out: str = "out") -> list[dict[str, Any]]:
    """The rows of all shards, by id; each id once."""
    found: list[dict[str, Any]] = []
    for path in sorted(Path(out).iterdir()):
        if path.suffix == ".parquet":
            found += pq.read_table(path).to_pylist()
        else:
            found += map(json.loads, path.read_bytes().splitlines())
    assert [name for name, times in Counter(row["id"] for row in found).items() if times > 1] == []
    return sorted(found, key=lambda row: str(row["id"]))


def local(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[dict[str, Any]]:
    """The rows that the local engine makes of the same with the same model."""
    with monkeypatch.context() as patch:
        batch, _ = fake_batch(patch)
        batch(*arguments, "-o", "local.jsonl", "-q")
    return sorted(map(json.loads, Path("local.jsonl").read_bytes().splitlines()), key=lambda row: str(row["id"]))


def test_rows_are_those_of_the_local_engine(cluster: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos").mkdir()
    fill(here / "photos", 12)
    (here / "photos/broken.png").write_bytes(b"no picture")
    (here / "gone.png").symlink_to("nowhere")
    sources = ("photos", "gone.png")
    assert run(cluster, sources=sources, recursive=True, format="jsonl", rows_per_shard=4) == "some failed"
    found = rows()
    assert found == local(monkeypatch, *sources, "-r")
    assert {row["path"] for row in found if row["status"] == "error"} == {"photos/broken.png", "gone.png"}
    assert len(list((here / "out").iterdir())) > 1
    # The same command again has nothing to do, and needs no Ray for that.
    before = {path: path.stat().st_mtime_ns for path in (here / "out").iterdir()}
    assert run("nowhere:1", sources=sources, recursive=True, format="jsonl", rows_per_shard=4) == "some failed"
    assert {path: path.stat().st_mtime_ns for path in (here / "out").iterdir()} == before
    # A new picture is the only one that is asked about.
    (here / "photos/new.png").write_bytes(png(77))
    assert run(cluster, sources=sources, recursive=True, format="jsonl", rows_per_shard=4) == "some failed"
    assert len(rows()) == len(found) + 1
    with pytest.raises(DsvlError, match="different settings; now: prompt"):
        run(cluster, sources=("photos",), format="jsonl", prompt="Another?")
    with pytest.raises(DsvlError, match="different settings; now: format"):
        run(cluster, sources=("photos",), format="parquet")


@pytest.mark.fault("a picture that ends a worker of a cluster")
def test_a_picture_that_ends_its_process_becomes_an_error_row(cluster: str, here: Path) -> None:
    (here / "photos").mkdir()
    paths = fill(here / "photos", 10)
    killer = frozenset({hashlib.sha256(Path(paths[8]).read_bytes()).hexdigest()})
    make = partial(make_fake, killers=killer)
    assert run(cluster, make, sources=("photos",), recursive=True, rows_per_shard=5) == "some failed"
    found = {row["id"]: row for row in rows()}
    assert len(found) == 10
    (error,) = [row for row in found.values() if row["status"] == "error"]
    assert error["id"] == os.path.relpath(paths[8], here)
    assert "given up" in error["error"]
    assert [path.name for path in (here / "out.dsvl/trials").iterdir() if path.name.startswith("block-")] == []


def test_questions_are_columns_and_a_report_is_written(cluster: str, here: Path) -> None:
    (here / "photos").mkdir()
    fill(here / "photos", 3)
    (here / "ask.toml").write_text('colour = "Which colour has {name}?"\nkind = "Which kind?"\n')
    report = here / "report.html"
    assert run(cluster, sources=("photos",), ask=Path("ask.toml"), report=report) == "done"
    first = rows()[0]
    assert first["colour"].startswith("Which colour has")
    assert "{name}" not in first["colour"]
    assert first["kind"].startswith("Which kind?")
    page = report.read_text()
    assert page.count("<article") == 3 or page.count("data:image/webp") == 3


def test_too_many_errors_stop_the_job(cluster: str, here: Path) -> None:
    (here / "photos").mkdir()
    for number in range(30):
        (here / f"photos/{number}.png").write_bytes(b"no picture")
    with pytest.raises(DsvlError, match="more than 3 failed"):
        run(cluster, partial(make_fake, seconds=0.2), sources=("photos",), max_errors=3, rows_per_shard=2)


def test_the_command_starts_ray_itself(here: Path) -> None:
    (here / "photos").mkdir()
    example = Path(__file__).parents[3] / "examples/red-circle.png"
    (here / "photos/a.png").write_bytes(example.read_bytes())
    command = [sys.executable, "-m", "dsvl_cli", "batch", "photos", "-o", "out", "--engine", "ray", "--model", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    # Nothing of Ray's own, and no port that others reach.
    assert (done.stdout, lines[0], lines[1], lines[-1]) == ("", "starting Ray", "1 worker", "rows in out")
    assert "1 answered" in lines[-2]
    assert len(lines) <= 5
    (row,) = rows()
    assert row["text"] == "A red circle on a white background."

"""Nothing is lost, and nothing is done twice: a worker is killed, a node removed, then the job itself, and it goes on.

The short form has some pictures, the long one 500; both compare every answer with the local engine's.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from training.scenes import draw_scene, sample_scene

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
    pytest.mark.filterwarnings("default"),  # those of Ray are not ours
]
COMMAND = [
    sys.executable,
    "-m",
    "dsvl_cli",
    "batch",
    "photos",
    "--model",
    "tiny",
    "--dtype",
    "float32",
    "--threads",
    "1",
]
NODE = {"num_cpus": 3, "object_store_memory": 150 * 2**20, "include_dashboard": False}


def draw(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        rng = random.Random(number)
        draw_scene(sample_scene(rng), 128).save(folder / f"{number}.png")


def saved(out: Path) -> int:
    return len(list(out.glob("*.jsonl")))


def wait_for(what: Callable[[], object], process: subprocess.Popen[str], seconds: float) -> Any:
    """Return the first true value of `what`; fails if the job ends before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.kill()
    raise AssertionError(process.communicate())


def find_workers() -> list[psutil.Process]:
    """The processes that ask about pictures."""
    names = ((process, process.info["cmdline"] or [""]) for process in psutil.process_iter(["cmdline"]))
    return [process for process, line in names if line[0].startswith("ray::MapWorker(MapBatches(CaptionBlock")]


def lose_everything(tmp_path: Path, count: int, shard: int, seconds: float) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    draw(tmp_path / "photos", count)
    (tmp_path / "photos/broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        others = [cluster.add_node(**NODE) for _ in range(2)]
        command = [
            *COMMAND, "-o", "out", "--engine", "ray", "--ray-address", cluster.address, "--workers", "1:3",
            "--format", "jsonl", "--rows-per-shard", str(shard), "--batch-size", "1",
        ]  # fmt: skip
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
        job = subprocess.Popen(command, **pipes)
        wait_for(lambda: saved(out) >= 1, job, seconds)
        wait_for(find_workers, job, seconds)[0].kill()
        wait_for(lambda: saved(out) >= 2, job, seconds)
        cluster.remove_node(others[0], allow_graceful=False)
        wait_for(lambda: saved(out) >= 3, job, seconds)
        job.send_signal(signal.SIGKILL)
        job.communicate()
        assert saved(out) * shard < count  # there is something left to do
        again = subprocess.run(command, timeout=seconds, **{**pipes, "check": False})
        assert again.returncode == 1, again.stderr  # one is broken
        assert f"{count:,} answered, 1 failed" in again.stderr
    finally:
        cluster.shutdown()
    local = subprocess.run([*COMMAND, "-o", "local.jsonl", "-q"], cwd=tmp_path, capture_output=True, timeout=seconds)
    assert local.returncode == 1
    expected = read([tmp_path / "local.jsonl"])
    found = read(sorted(out.glob("*.jsonl")))
    assert len(expected) == count + 1
    assert found == expected


def read(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """The rows by id, without how long they took; each id once."""
    rows = [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
    assert [id_ for id_, times in Counter(row["id"] for row in rows).items() if times > 1] == []
    return {row["id"]: {name: value for name, value in row.items() if name != "seconds"} for row in rows}


@pytest.mark.timeout(1200)
@pytest.mark.fault("a worker, a node and a job of a cluster that are killed")
def test_what_is_lost_is_done_again_and_nothing_else(tmp_path: Path) -> None:
    lose_everything(tmp_path, 60, 8, 400)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.fault("a worker, a node and a job of a cluster that are killed")
def test_five_hundred_scenes_survive_all_losses(tmp_path: Path) -> None:
    lose_everything(tmp_path, 500, 25, 1500)


@pytest.mark.timeout(900)
def test_ctrl_c_keeps_what_is_saved_and_frees_the_workers(tmp_path: Path) -> None:
    draw(tmp_path / "photos", 60)
    command = [
        *COMMAND,
        "-o",
        "out",
        "--engine",
        "ray",
        "--format",
        "jsonl",
        "--rows-per-shard",
        "4",
        "--batch-size",
        "1",
    ]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    job = subprocess.Popen(command, **pipes)
    wait_for(lambda: saved(tmp_path / "out") >= 1, job, 400)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=120)
    assert job.returncode == 130, err
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    before = read(sorted((tmp_path / "out").glob("*.jsonl")))
    assert 0 < len(before) < 60
    end = time.monotonic() + 30
    while find_workers() and time.monotonic() < end:
        time.sleep(0.2)
    assert find_workers() == []
    again = subprocess.run(command, timeout=400, **{**pipes, "check": False})
    assert again.returncode == 0, again.stderr
    assert len(read(sorted((tmp_path / "out").glob("*.jsonl")))) == 60

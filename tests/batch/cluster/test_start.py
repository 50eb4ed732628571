"""How many workers there are: never so many that nothing is left to read and write."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from dsvl_cli.batch.cluster.actor import Share
from dsvl_cli.batch.cluster.progress import Gathering
from dsvl_cli.batch.cluster.start import choose_workers, list_open_ports, parse_workers
from dsvl_cli.errors import DsvlError, UsageError


@pytest.mark.parametrize(("text", "pair"), [("8", (8, 8)), ("1:64", (1, 64)), (" 2:2 ", (2, 2))])
def test_a_number_or_a_range(text: str, pair: tuple[int, int]) -> None:
    assert parse_workers(text) == pair


@pytest.mark.parametrize("text", ["", "0", "0:3", "4:2", "-1", "1:", ":3", "1:2:3", "many", "1.5", "٣", "1234567"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--workers"):
        parse_workers(text)


@pytest.mark.parametrize(
    ("wanted", "gpus", "threads", "cluster", "expected"),
    [
        (None, None, None, {"CPU": 8.0}, (6, 6, 1.0, 0.0)),
        (None, None, 4, {"CPU": 64.0}, (15, 15, 4.0, 0.0)),
        (None, None, None, {"CPU": 64.0, "GPU": 8.0}, (8, 8, 1.0, 1.0)),
        (None, 0.5, None, {"CPU": 64.0, "GPU": 8.0}, (16, 16, 1.0, 0.5)),
        (None, 0.0, None, {"CPU": 6.0, "GPU": 8.0}, (4, 4, 1.0, 0.0)),
        ((1, 64), None, None, {"CPU": 3.0}, (1, 64, 1.0, 0.0)),  # the cluster may grow
        ((2, 2), None, None, {"CPU": 4.0}, (2, 2, 1.0, 0.0)),
    ],
)
def test_workers_leave_room_for_reading_and_writing(
    wanted: tuple[int, int] | None, gpus: float | None, threads: int | None, cluster: dict[str, float], expected: object
) -> None:
    found = choose_workers(wanted, gpus, threads, cluster)
    assert (found.least, found.most, found.cpus, found.gpus) == expected


@pytest.mark.parametrize(
    ("wanted", "gpus", "cluster"),
    [((3, 3), None, {"CPU": 4.0}), ((1, 1), None, {"CPU": 2.0}), ((2, 4), 1.0, {"CPU": 64.0, "GPU": 1.0})],
)
def test_too_many_workers_are_refused(wanted: tuple[int, int], gpus: float | None, cluster: dict[str, float]) -> None:
    with pytest.raises(DsvlError, match="workers need"):
        choose_workers(wanted, gpus, None, cluster)


def test_a_block_that_is_done_again_counts_once() -> None:
    gathering = Gathering()
    gathering.tell("a", Share(answered=3, failed=1, messages=["x: broken"]))
    gathering.tell("b", Share(answered=1))
    assert (gathering.ask().done, gathering.ask().messages) == (5, [])
    gathering.tell("a", Share(answered=1))  # its worker was lost
    gathering.tell("a", Share(answered=4, suspect=1, failed=1, messages=["x: broken"], is_complete=True))
    found = gathering.ask()
    assert (found.answered, found.suspect, found.failed) == (5, 1, 1)


def test_a_run_of_failures_is_counted_over_all_workers() -> None:
    gathering = Gathering()
    for number in range(3):
        gathering.tell(str(number), Share(failed=50, is_complete=True))
    assert gathering.ask().in_a_row == 150
    gathering.tell("4", Share(answered=1, failed=49, is_complete=True))
    assert gathering.ask().in_a_row == 0


def test_ports_that_others_reach_are_found() -> None:
    child = (
        "import socket, sys\n"
        "far = socket.create_server(('0.0.0.0', 0)); near = socket.create_server(('127.0.0.1', 0))\n"
        "print(far.getsockname()[1], near.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        far, near = map(int, process.stdout.readline().split())
        found = list_open_ports()
        process.communicate()
    assert far in found
    assert near not in found
    with socket.create_server(("0.0.0.0", 0)) as own:  # what listens in this process is none of Ray's
        assert own.getsockname()[1] not in list_open_ports()

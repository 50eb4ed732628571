"""Whatever ends a run, and wherever: the same command goes on, and in the end every picture has its one row."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.batch.row import Row
from tests.batch.fakes import BATCH, fill

pytestmark = pytest.mark.fault("kills, signals and disks that fail")
PICTURES = 60
ROOT = Path(__file__).parent.parent.parent
OUTS = ("out.jsonl", "out.csv", "texts")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    assert len(fill(folder, PICTURES)) == PICTURES
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    """Forks runs."""
    command = [sys.executable, "-m", "tests.batch.child"]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


@dataclass
class Run:
    """Runs of `dsvl batch` in children, all with the same output."""

    server: subprocess.Popen[str]
    pictures: Path
    out: Path
    log: Path

    def start(self, plan: dict[str, Any], *options: str) -> subprocess.Popen[str]:
        """Start an interpreter of its own."""
        plan = {"log": str(self.log), **plan}
        command = [sys.executable, "-m", "tests.batch.child", json.dumps(plan), str(self.pictures), "-r"]
        return subprocess.Popen(
            [*command, "-o", str(self.out), *options],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, plan: dict[str, Any], *options: str) -> tuple[int, str]:
        """Run to the end; returns the exit status and stderr."""
        out, err = (self.log.with_name(name) for name in ("stdout", "stderr"))
        arguments = [str(self.pictures), "-r", "-o", str(self.out), *options]
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(
            json.dumps([{"log": str(self.log), **plan}, arguments, str(out), str(err)]),
            file=self.server.stdin,
            flush=True,
        )
        status = int(self.server.stdout.readline())
        assert out.read_text() == ""
        assert "Traceback" not in err.read_text()
        return status, err.read_text()

    @property
    def journal(self) -> Path:
        return self.out if self.out.suffix == ".jsonl" else self.out.with_name(self.out.name + ".journal.jsonl")

    def ids(self) -> list[str]:
        """Of the whole lines of the journal."""
        lines = self.journal.read_bytes().split(b"\n")[:-1] if self.journal.exists() else []
        return [json.loads(line)["id"] for line in lines]

    def take_asked(self) -> tuple[Counter[str], int]:
        """How often the model was asked about each picture, and how many batches there were, since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return Counter(line for line in lines if line != "!"), lines.count("!")

    def result(self) -> Any:
        """Everything that the run is to give, but for times: rows by id, and the table or the texts."""
        lines = self.journal.read_bytes().split(b"\n")
        assert lines.pop() == b""
        rows = {row["id"]: {**row, "seconds": None} for row in map(json.loads, lines)}
        assert len(rows) == len(lines)
        assert not list(self.out.parent.rglob("*.dsvl-new"))
        if self.out.suffix == ".csv":
            with self.out.open(newline="", encoding="utf-8") as file:
                return rows, [{**row, "seconds": None} for row in csv.DictReader(file)]
        if self.out.is_dir():
            return rows, {str(path.relative_to(self.out)): path.read_text() for path in self.out.rglob("*.txt")}
        return rows


@pytest.fixture
def new_run(server: subprocess.Popen[str], pictures: Path, tmp_path: Path) -> Callable[[str], Run]:
    numbers = iter(range(10_000))

    def make(out: str) -> Run:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return Run(server, pictures, folder / out, folder / "log")

    return make


@dataclass
class Reference:
    result: Any
    operations: int


@pytest.fixture(scope="module")
def references(
    server: subprocess.Popen[str], pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Reference]:
    """What undisturbed runs give, and how many operations on the disk they take."""
    found = {}
    for out in OUTS:
        folder = tmp_path_factory.mktemp("reference")
        run = Run(server, pictures, folder / out, folder / "log")
        status, err = run({"count": str(folder / "count")})
        assert status == 0, err
        assert f"{PICTURES} answered" in err
        found[out] = Reference(run.result(), int((folder / "count").read_text()))
        assert len(run.ids()) == PICTURES
    return found


def check_rerun(run: Run, reference: Reference) -> None:
    """After a kill: nothing finished is asked again, at most a batch was lost, and the end is the same."""
    kept = run.ids()
    asked, batches = run.take_asked()
    assert len(set(kept)) == len(kept)
    assert asked.total() - len(kept) <= BATCH
    assert batches <= PICTURES // BATCH
    status, err = run({})
    assert status == 0, err
    asked_again, _ = run.take_asked()
    assert asked_again.total() == PICTURES - len(kept)
    assert run.result() == reference.result


def drawn(count: int) -> list[tuple[str, float, str]]:
    """Places spread over the run: an output, a share of its operations, and when the kill comes."""
    rng = random.Random(5)
    return [(OUTS[i % 3], (i + rng.random()) / count, ("half", "before", "after")[i // 3 % 3]) for i in range(count)]


@pytest.mark.parametrize(("out", "share", "when"), drawn(9))
def test_a_kill_at_an_operation_on_the_disk_loses_at_most_a_batch(
    new_run: Callable[[str], Run], references: dict[str, Reference], out: str, share: float, when: str
) -> None:
    run = new_run(out)
    number = 1 + int(share * references[out].operations)
    assert run({"kill": number, "when": when})[0] == -signal.SIGKILL
    check_rerun(run, references[out])


@pytest.mark.soak
@pytest.mark.parametrize("out", OUTS)
def test_a_kill_at_every_operation_on_the_disk(
    new_run: Callable[[str], Run], references: dict[str, Reference], out: str
) -> None:
    for number in range(1, references[out].operations + 1):
        for when in ("before", "half"):  # after one is before the next
            run = new_run(out)
            assert run({"kill": number, "when": when})[0] == -signal.SIGKILL, (number, when)
            check_rerun(run, references[out])


def kill_at(run: Run, reference: Reference, seconds: float) -> None:
    child = run.start({"seconds": 0.02})
    time.sleep(seconds)
    child.kill()
    child.communicate()
    check_rerun(run, reference)


def test_a_kill_at_a_random_time(
    new_run: Callable[[str], Run], references: dict[str, Reference], chance: random.Random
) -> None:
    for out in OUTS:
        kill_at(new_run(out), references[out], chance.uniform(0.3, 1.2))


@pytest.mark.soak
def test_kills_at_200_random_times(
    new_run: Callable[[str], Run], references: dict[str, Reference], chance: random.Random
) -> None:
    for number in range(200):
        out = OUTS[number % 3]
        kill_at(new_run(out), references[out], chance.uniform(0.0, 1.5))


def tear(run: Run, whole: bytes, length: int) -> None:
    run.journal.write_bytes(whole[:length])


@pytest.mark.parametrize("out", OUTS)
def test_a_torn_tail_is_done_again(new_run: Callable[[str], Run], references: dict[str, Reference], out: str) -> None:
    run = new_run(out)
    assert run({})[0] == 0
    whole = run.journal.read_bytes()
    lines = whole.split(b"\n")
    begin = len(whole) - len(lines[-2]) - len(lines[-3]) - 2
    for length in random.Random(6).sample(range(begin, len(whole)), 2):
        tear(run, whole, length)
        run.take_asked()
        # A text without its row would be somebody else's: it is only torn here, never by a kill.
        assert run({}, *(["--existing", "overwrite"] if out == "texts" else []))[0] == 0
        assert run.take_asked()[0].total() == (2 if length < len(whole) - len(lines[-2]) - 1 else 1)
        assert run.result() == references[out].result


@pytest.mark.soak
def test_torn_tails_at_every_byte_of_the_last_two_rows(
    new_run: Callable[[str], Run], references: dict[str, Reference]
) -> None:
    run = new_run("out.jsonl")
    assert run({})[0] == 0
    whole = run.journal.read_bytes()
    lines = whole.split(b"\n")
    for length in range(len(whole) - len(lines[-2]) - len(lines[-3]) - 2, len(whole)):
        tear(run, whole, length)
        assert run({})[0] == 0
        assert run.result() == references["out.jsonl"].result, length


@pytest.mark.parametrize("code", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("out", OUTS)
def test_a_write_that_fails_stops_the_run_with_its_cause(
    new_run: Callable[[str], Run], references: dict[str, Reference], out: str, code: str
) -> None:
    share = {"out.jsonl": 0.4, "out.csv": 0.99, "texts": 0.7}[out]
    fail_at(new_run(out), references[out], 1 + int(share * references[out].operations), code)


@pytest.mark.soak
@pytest.mark.parametrize("code", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("out", OUTS)
def test_a_failure_at_every_operation_on_the_disk(
    new_run: Callable[[str], Run], references: dict[str, Reference], out: str, code: str
) -> None:
    for number in range(1, references[out].operations + 1):
        fail_at(new_run(out), references[out], number, code)


def fail_at(run: Run, reference: Reference, number: int, code: str) -> None:
    status, err = run({"fail": number, "errno": code})
    assert status == 1, number
    cause = {"ENOSPC": "No space left on device", "EIO": "Input/output error"}[code]
    assert f"cannot be written: {cause}" in err
    assert "run the same command again to resume" in err
    check_rerun(run, reference)


@pytest.mark.fault("runs killed while they read a picture")
@pytest.mark.parametrize("out", OUTS)
def test_a_picture_that_kills_a_run_is_an_error_in_the_next(
    new_run: Callable[[str], Run], references: dict[str, Reference], out: str
) -> None:
    run = new_run(out)
    poison = {"poison": "/30.png"}
    assert run(poison)[0] == -signal.SIGKILL
    status, err = run(poison)
    assert status == 1
    assert "30.png: the decoder crashed" in err
    rows = [json.loads(line) for line in run.journal.read_bytes().splitlines()]
    assert len(rows) == PICTURES
    assert [row["path"][-7:] for row in rows if row["status"] == "error"] == ["/30.png"]
    assert run(poison)[0] == 1
    run.take_asked()
    assert run({}, "--retry-errors")[0] == 0
    assert run.take_asked()[0].total() == 1
    assert run.result() == references[out].result


@pytest.mark.fault("runs killed while they read a picture")
def test_a_picture_that_ends_three_runs_whatever_is_done_is_given_up(
    new_run: Callable[[str], Run], references: dict[str, Reference]
) -> None:
    run = new_run("out.jsonl")
    assert run({"poison": "/30.png"})[0] == -signal.SIGKILL
    trials = run.out.with_name(".out.jsonl.dsvl-trials")
    trials.write_bytes(trials.read_bytes().replace(b" 000001\n", b" 000003\n"))
    status, err = run({})
    assert status == 1
    assert "30.png: given up: 3 runs ended while it was being read" in err
    assert len(run.ids()) == PICTURES


@pytest.mark.parametrize("out", OUTS)
def test_short_writes_are_gone_on_with(
    new_run: Callable[[str], Run], references: dict[str, Reference], out: str
) -> None:
    run = new_run(out)
    assert run({"short": 7})[0] == 0
    assert run.result() == references[out].result


def test_a_second_run_is_told_of_the_first_and_a_killed_holder_holds_nothing(
    new_run: Callable[[str], Run], references: dict[str, Reference]
) -> None:
    run = new_run("out.jsonl")
    first = run.start({"seconds": 0.2})
    while not run.ids():
        time.sleep(0.02)
    before = run.ids()
    status, err = run({})
    assert status == 1
    assert f"another dsvl is writing {run.out}" in err
    assert run.ids()[: len(before)] == before
    first.kill()
    first.communicate()
    run.take_asked()
    assert run({})[0] == 0
    assert run.result() == references["out.jsonl"].result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_batch_in_flight_finish(
    new_run: Callable[[str], Run], references: dict[str, Reference], number: int
) -> None:
    run = new_run("out.csv")
    status, err = run({"signal": number})
    assert status == 128 + number
    assert "finishing the pictures in progress" in err
    assert "run the same command again to resume" in err
    assert len(run.ids()) == 2 * BATCH
    assert run.out.read_text().count("answered") == 2 * BATCH  # the table is there, as far as it goes
    assert run.take_asked()[0].total() == 2 * BATCH
    assert run({})[0] == 0
    assert run.take_asked()[0].total() == PICTURES - 2 * BATCH
    assert run.result() == references["out.csv"].result


def test_a_second_signal_ends_at_once(new_run: Callable[[str], Run], references: dict[str, Reference]) -> None:
    run = new_run("out.jsonl")
    child = run.start({"seconds": 600})
    while not run.log.exists():
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGINT
    check_rerun(run, references["out.jsonl"])


def test_a_closed_pipe_ends_quietly(pictures: Path) -> None:
    command = [sys.executable, "-m", "tests.batch.child", '{"seconds": 0.05}', str(pictures), "-r", "-o", "-"]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    row = Row.from_json(child.stdout.readline())
    assert row.status == "answered"
    child.stdout.close()
    err = child.stderr.read().decode()
    child.stderr.close()
    assert child.wait(60) == 0
    assert "Traceback" not in err
    assert "rror" not in err


def test_the_work_goes_on_when_nobody_listens_any_more(
    new_run: Callable[[str], Run], references: dict[str, Reference]
) -> None:
    run = new_run("out.jsonl")
    child = run.start({"seconds": 0.02})
    for stream in (child.stdout, child.stderr):
        assert stream is not None
        stream.close()
    assert child.wait(60) == 0
    assert run.result() == references["out.jsonl"].result

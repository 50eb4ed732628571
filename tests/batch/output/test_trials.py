"""What was being read when a run ended is known to the next."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsvl_cli.batch.output.trials import Trials


def opened(path: Path) -> Trials:
    trials = Trials(path)
    trials.open()
    return trials


def test_what_is_read_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trials"
    trials = opened(path)
    for name in "abc":
        with trials.attempt(name):
            assert path.stat().st_size > 0
    again = opened(path)
    assert [again.ended(name) for name in "abc"] == [0, 0, 0]
    trials.close()
    assert not path.exists()
    again.close()


@pytest.mark.fault("runs killed while they read a picture", cases=3)
def test_each_run_that_ends_over_an_item_counts(tmp_path: Path) -> None:
    path = tmp_path / "trials"
    code = (
        "import os, sys; from pathlib import Path; from dsvl_cli.batch.output.trials import Trials\n"
        "trials = Trials(Path(sys.argv[1])); trials.open()\n"
        "with trials.attempt('fine'): pass\n"
        "with trials.attempt('also'), trials.attempt('p\\udcff'):\n"
        "    with trials.attempt('fine'): pass\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    for times in range(1, 4):
        status = subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode
        assert status == -signal.SIGKILL
        trials = opened(path)
        assert [trials.ended(name) for name in ("p\udcff", "also", "fine", "other")] == [times, times, 0, 0]


@pytest.mark.fault("planted links and files")
@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"\xff" * 99, b"x y z\n", b"abc notanumber\n", b"a" * 10_000])
def test_a_damaged_file_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trials"
    path.write_bytes(content)
    trials = opened(path)
    assert trials.ended("a") == 0
    with trials.attempt("a"):
        pass
    trials.close()


def test_it_is_never_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "trials").symlink_to("victim")
    with pytest.raises(OSError, match=r".*"):
        opened(tmp_path / "trials")
    assert (tmp_path / "victim").read_text() == "precious"

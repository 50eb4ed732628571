"""A place that is full, closed or missing is an error in one line, and the end of the program is orderly."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dsvl_cli import __main__, cli
from dsvl_cli.config import read_config
from dsvl_cli.errors import DsvlError, ExitStatus
from dsvl_cli.sessions.store import default_store_path

pytestmark = [
    pytest.mark.fault("a place that is full, closed or missing"),
    pytest.mark.skipif(os.name == "nt", reason="descriptors and devices of Unix"),
]
COMMAND = [sys.executable, "-m", "dsvl_cli"]


def run(command: list[str], redirection: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    line = f'"$@" {redirection}'
    environment = {**os.environ, **variables}
    return subprocess.run(
        ["sh", "-c", line, "sh", *command], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_no_bug() -> None:
    ended = run([*COMMAND, "--help"], "> /dev/full")
    assert (ended.returncode, "bug" in ended.stderr) == (ExitStatus.ERROR, False)
    assert "No space left" in ended.stderr


@pytest.mark.parametrize(
    "error", [OSError(28, "full"), OSError(9, "closed"), FileNotFoundError(2, "gone", "a\x1b.png")]
)
def test_any_error_of_the_system_is_no_bug(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("dsvl_cli.app.describe.answer_all", fail)
    assert cli.main(["describe", "a.png"]) == ExitStatus.ERROR
    said = capsys.readouterr().err
    assert os.strerror(error.errno or 0) in said
    assert "bug" not in said
    assert "\x1b" not in said


PRINTS_DESCRIPTORS = """
import os, sys
from dsvl_cli import cli
cli.main(["--version"])
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(file, str(file).encode())
os.write(1, b"stray")
os.write(2, b"stray")
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_file_never_becomes_one_of_the_standard_streams(closed: str, tmp_path: Path) -> None:
    file = tmp_path / "journal"
    run([sys.executable, "-c", PRINTS_DESCRIPTORS, str(file)], closed)
    assert int(file.read_text()) > 2


@pytest.mark.parametrize("command", [["describe", "examples/red-circle.png", "--model", "tiny", "-q"], ["doctor"]])
def test_an_answer_to_a_closed_stdout_is_an_error(command: list[str]) -> None:
    ended = run([*COMMAND, *command], ">&-")
    assert (ended.returncode, "stdout is closed" in ended.stderr) == (ExitStatus.ERROR, True)


def test_rows_cannot_go_to_a_closed_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from dsvl_cli.app.batch.output import open_output
    from tests.app.batch.jobs import job

    asked = job(out="-")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(DsvlError, match="stdout is closed"):
        open_output(asked.options, None)  # type: ignore[arg-type]


def test_without_a_home_there_are_no_settings_and_nothing_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def nobody(_: object) -> None:
        raise KeyError

    from dsvl_cli.engine.storage.cache_folder import cache_folder

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "DSVL_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert read_config({}).files == ()
    with pytest.raises(DsvlError, match="no home"):
        default_store_path({})
    with pytest.raises(OSError, match="Not a directory"):
        cache_folder().mkdir(parents=True)


def test_the_process_ends_at_once_while_a_thread_is_still_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[int] = []
    done = threading.Event()
    thread = threading.Thread(target=done.wait, daemon=True)
    monkeypatch.setattr(cli, "main", lambda: 5)
    monkeypatch.setattr(os, "_exit", statuses.append)
    thread.start()
    with pytest.raises(SystemExit):
        __main__.run()
    assert statuses == [5]
    done.set()
    thread.join()


@pytest.mark.soak
@pytest.mark.fault("the end of a chat while its model loads", cases=50)
def test_a_chat_whose_input_ends_while_the_model_loads(tmp_path: Path) -> None:
    for number in range(50):
        process = subprocess.Popen(
            [*COMMAND, "chat", "--model", "tiny"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "DSVL_DATA_DIR": str(tmp_path)},
        )  # fmt: skip
        time.sleep(0.2 + 0.06 * number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, b""), err

"""The error boundary: what a user sees, and with which exit status, when something goes wrong or is cut short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dsvl_cli import __version__, cli
from dsvl_cli.errors import ContextOverflow, DsvlError, ExitStatus, ImageError, SomeFailed, UsageError

COMMAND = [sys.executable, "-m", "dsvl_cli"]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes `dsvl describe x` raise."""

    def install(exc: BaseException) -> None:
        def fail(*_: object, **__: object) -> None:
            raise exc

        monkeypatch.setattr("dsvl_cli.app.describe.answer_all", fail)

    return install


@pytest.mark.parametrize(
    ("exc", "status", "message"),
    [
        (DsvlError("it broke", "mend it"), 1, "error: it broke\nhint: mend it\n"),
        (ImageError("x.png: damaged"), 1, "error: x.png: damaged\n"),
        (UsageError("both", "one"), 2, "error: both\nhint: one\n"),
        (ContextOverflow(700, 600), 1, "error: the prompt has 700 tokens, but the model's context is 600\n"),
        (SomeFailed("2 of 3"), 1, ""),
        (MemoryError(), 1, "error: out of memory\n"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "error: out of memory\n"),
        (ZeroDivisionError("oh"), 3, "error: this is a bug in dsvl: ZeroDivisionError: oh\n"),
        (BrokenPipeError(), 0, ""),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(143), 143, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_exception_has_its_status_and_one_message(
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    exc: BaseException,
    status: int,
    message: str,
) -> None:
    failing(exc)
    assert cli.main(["describe", "x.png"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") <= 2


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_debug_shows_the_traceback(
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    failing(DsvlError("it broke"))
    monkeypatch.setenv("DSVL_DEBUG", "1" if way == "environment" else "0")
    assert cli.main(["describe", "x.png", *(["--debug"] if way == "flag" else [])]) == 1
    assert "Traceback" in capsys.readouterr().err


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands that do something, with the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_can_show_the_traceback_that_it_may_be_asked_for(words: tuple[str, ...]) -> None:
    assert "--debug" in {name for parameter in COMMANDS[words].params for name in parameter.opts}


def test_a_bug_that_tells_to_run_the_command_with_debug_is_shown_by_that(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("dsvl_cli.app.sessions.remove_sessions", fail)
    assert cli.main(["sessions", "rm", "x"]) == ExitStatus.BUG
    assert "--debug" in capsys.readouterr().err
    assert cli.main(["sessions", "rm", "x", "--debug"]) == ExitStatus.BUG
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["descrobe"], ["descrobe", "describe"]),
        (["describe"], ["IMAGE"]),
        (["describe", "x.png", "--tempersture", "1"], ["--tempersture", "--temperature"]),
        (["describe", "x.png", "--dtype", "float8"], ["float8", "bfloat16"]),
        (["describe", "x.png", "--max-new-tokens", "many"], ["--max-new-tokens is many", "whole number"]),
        (["describe", "x.png", "--top-p", "3"], ["--top-p is 3;", "above 0"]),
        (["describe", "-", "-p", "-"], ["stdin"]),
        (["describe", "-", "-"], ["stdin"]),
        (["describe", "a.png", "b.png", "-p", "<image> <image> <image>?"], ["3", "2"]),
        (["describe", "a.png", "b.png", "--together", "-p", "<image>?"], ["1", "2"]),
    ],
)
def test_a_wrong_command_line_is_answered_in_two_lines(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert cli.main(arguments) == ExitStatus.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") <= 2
    for word in words:
        assert word in captured.err


def test_a_wrong_option_from_the_environment_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSVL_DTYPE", "float8")
    assert cli.main(["describe", "x.png"]) == ExitStatus.USAGE
    assert "float8" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dsvl {__version__}\n"


def test_bare_dsvl_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    captured = capsys.readouterr()
    assert "describe" in captured.out
    assert captured.err == ""


def start(*arguments: str, stdin: int | None = None, stdout: int | None = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *arguments], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (getattr(signal, "SIGHUP", 1), 129)]
)
def test_signals_end_a_command_quietly(number: signal.Signals, status: int) -> None:
    process = start("describe", "-", "--model", "tiny", stdin=subprocess.PIPE)
    # It waits for a picture on stdin by the time it has said nothing for a while.
    wait_until_reading(process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    assert stderr == b""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_exception_was_replaced_still_ends_it_quietly(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        except BaseException:
            pass
        raise ValueError("could not determine the shape")  # as extensions have it, without a cause

    monkeypatch.setattr("dsvl_cli.app.describe.answer_all", fail)
    before = signal.getsignal(number)
    assert cli.main(["describe", "x"]) == 128 + number
    assert capsys.readouterr().err == ""
    assert signal.getsignal(number) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_ctrl_c_while_the_interpreter_ends_shows_no_traceback() -> None:
    at_exit = "atexit.register(os.kill, os.getpid(), signal.SIGINT)"
    code = f"import atexit, os, signal; from dsvl_cli.__main__ import run; {at_exit}; run()"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, timeout=60, check=False)
    assert done.stdout.startswith(b"dsvl ")
    assert done.stderr == b""
    assert done.returncode == -signal.SIGINT


def test_ctrl_c_during_the_first_imports_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from dsvl_cli.__main__ import run; run()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def wait_until_reading(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process sleeps in a read: its signal handlers are set by then."""
    stat = Path(f"/proc/{process.pid}/wchan")
    calm = 0
    deadline = time.monotonic() + 60
    while calm < 5 and time.monotonic() < deadline:
        asleep = not stat.exists() or Path(f"/proc/{process.pid}/stat").read_text().split(") ")[1].startswith("S")
        calm = calm + 1 if asleep else 0
        time.sleep(0.1)


@pytest.mark.skipif(os.name == "nt", reason="pipes of Unix")
@pytest.mark.parametrize("arguments", [["--help"], ["describe", "--help"]])
def test_a_closed_pipe_is_quiet(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start(*arguments, stdout=writer)
    os.close(writer)
    _, stderr = process.communicate(timeout=60)
    assert stderr == b""
    assert process.returncode in (0, 1)

"""Every signal at every state of a chat and of `dsvl describe`; test_kill.py and test_terminal.py have more of them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsvl_cli.sessions.store import SessionStore
from tests.signal_child import ANSWER, STATES

pytestmark = [
    pytest.mark.fault("a signal"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of Unix"),
]
ROOT = Path(__file__).parents[1]
SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGTSTP", "SIGCONT", "SIGWINCH"]
STATUSES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
CASES = [(command, state, name) for command, states in STATES.items() for state in states for name in SIGNALS]


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.signal_child"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        process_group=0,  # SIGTSTP does nothing in a group whose parents are all in others' sessions
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(("command", "state", "name"), CASES)
def test_a_signal_ends_in_order_or_changes_nothing(
    server: subprocess.Popen[str], tmp_path: Path, command: str, state: str, name: str
) -> None:
    shutil.copy(ROOT / "examples" / "red-circle.png", tmp_path / "a.png")
    case = {"command": command, "state": state, "number": getattr(signal, name), "folder": str(tmp_path)}
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(case), file=server.stdin, flush=True)
    status, stopped = json.loads(server.stdout.readline())
    out, err = ((tmp_path / each).read_text() for each in ("out", "err"))
    assert status == STATUSES.get(name, 0), err
    assert stopped == (name == "SIGTSTP")
    assert "Traceback" not in err
    assert "error" not in err
    if name not in STATUSES:
        assert out == f"{ANSWER}\n"
    elif "token" in state:
        assert out == ("" if "first" in state else "one two\n")
    if command == "chat":
        with SessionStore(tmp_path / "sessions.sqlite3") as store:
            latest = store.latest()
        answers = [message.text for message in latest.conversation.messages[1:]] if latest else []
        if name not in STATUSES or state in ("before saving", "after saving"):
            assert answers == [ANSWER]
        else:
            assert answers == (["one two"] if state == "third token" else [])

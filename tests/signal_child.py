"""`python -m tests.signal_child`: runs `dsvl` with a fake model in forks, each of which gets a signal at one state.

For each line of stdin, `{"command": ..., "state": ..., "number": ..., "folder": ...}`, it prints `[exit status, times
it stopped]`. The streams are in files of the folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.terminal.fake_model import FakeModel

ANSWER = "one two three four five"
STATES = {
    "chat": ("loading", "reading a line", "reading a picture", "first token", "third token", "before saving",
             "after saving"),
    "describe": ("loading", "reading a picture", "first token", "third token"),
}  # fmt: skip


@dataclass
class Model(FakeModel):
    """With what `dsvl describe` looks at."""

    has_chat: bool = True
    dtype: str = "float32"
    device: str = "cpu"


def run(case: dict[str, Any]) -> int:
    sent = False

    def at(state: str) -> None:
        nonlocal sent
        if state == case["state"] and not sent:
            sent = True
            os.kill(os.getpid(), case["number"])
            time.sleep(0.05)  # a thread other than the main one goes on before the handler runs

    model = Model([ANSWER], before_chunk=lambda number: at({0: "first token", 2: "third token"}.get(number, "")))

    def load(*_: object) -> Model:
        at("loading")
        return model

    def around(function: Callable[..., Any], before: str, after: str = "") -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            at(before)
            result = function(*arguments, **options)
            at(after)
            return result

        return wrapped

    engine_model: Any = types.ModuleType("dsvl_cli.engine.model")
    engine_model.load_model = load
    sys.modules["dsvl_cli.engine.model"] = engine_model
    from dsvl_cli.app import chat, describe
    from dsvl_cli.cli import main
    from dsvl_cli.engine.pictures import images
    from dsvl_cli.sessions.store import SessionStore
    from dsvl_cli.terminal.chat.script import ScriptLines

    chat._engine_loader = lambda *_: load
    images.read_picture = around(images.read_picture, "reading a picture")
    vars(describe)["read_picture"] = images.read_picture
    SessionStore.save = around(SessionStore.save, "before saving", "after saving")  # type: ignore[method-assign]
    ScriptLines.read = around(ScriptLines.read, "reading a line")  # type: ignore[method-assign]
    return main([case["command"], "a.png", "--model", "tiny"])


def serve() -> Iterator[tuple[int, int]]:
    import_module("dsvl_cli.app.chat")
    import_module("dsvl_cli.app.describe")
    import_module("dsvl_cli.cli").main(["describe", "--help"])
    for line in sys.stdin:
        case = json.loads(line)
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.chdir(case["folder"])
            os.environ["DSVL_DATA_DIR"] = case["folder"]
            Path("in").write_text("What is it?\n")
            for number, name in enumerate(("in", "out", "err")):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
            os._exit(run(case))
        stopped = 0
        while True:
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            stopped += 1
            os.kill(pid, signal.SIGCONT)
        yield os.waitstatus_to_exitcode(status), stopped


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for ended in serve():
        print(json.dumps(ended), file=answers, flush=True)

"""`python -m tests.batch.child PLAN ARGUMENT...`: `dsvl batch` with a fake model, and with whatever PLAN lets go wrong.

Without arguments it forks a process for each line of stdin, `[PLAN, [ARGUMENT...], OUTPUT FILE, ERROR FILE]`, and
prints how it ended: so a run need not start an interpreter.

PLAN is a JSON object, every field of which may be missing:

    kill        the number of the operation on the disk (a write, an fsync or a rename) that kills the process
    when        `before`, `half` (half of what is written), or `after` that operation
    fail        the number of the operation from which on all fail
    errno       with what
    short       every write takes only so many bytes
    log         a file to which each picture that the model is asked about is added, and `!` for each batch
    seconds     how long a batch takes
    signal      sends itself this signal when the model is asked the second time
    poison      decoding a picture whose name ends so kills the process that does it
    bad         the pictures of this width cannot be answered about
    sync_seconds  how long rows may wait for their fsync; 0
    count       a file to which the number of operations is written at the end
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import types
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from dsvl_cli.batch.output import journal
from dsvl_cli.engine.conversation import Picture, Request
from dsvl_cli.engine.pictures import bounded, images, worker
from dsvl_cli.engine.storage import files
from dsvl_cli.errors import ContextOverflow
from tests.batch.fakes import FakeBatchModel


class FaultySystem(files.System):
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.operations = 0

    def write(self, handle: int, data: memoryview) -> int:
        half = max(1, len(data) // 2)
        self.begin(lambda: os.write(handle, data[:half]))
        written = super().write(handle, data[: self.plan.get("short", len(data))])
        self.end()
        return written

    def sync(self, handle: int) -> None:
        self.begin()
        super().sync(handle)
        self.end()

    def replace(self, source: Path, target: Path) -> None:
        self.begin()
        super().replace(source, target)
        self.end()

    def begin(self, half: Any = lambda: None) -> None:
        self.operations += 1
        if self.operations == self.plan.get("kill"):
            if self.plan["when"] == "half":
                half()
            if self.plan["when"] != "after":
                os.kill(os.getpid(), signal.SIGKILL)
        if self.operations >= self.plan.get("fail", sys.maxsize):
            half()
            code = getattr(errno, self.plan["errno"])
            raise OSError(code, os.strerror(code))

    def end(self) -> None:
        if self.operations == self.plan.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)


def make_model(plan: dict[str, Any]) -> FakeBatchModel:
    model = FakeBatchModel(seconds=plan.get("seconds", 0.0))

    def before_batch(batch: list[Request]) -> None:
        model.asked.clear()  # it would keep the pictures
        if "log" in plan:
            with open(plan["log"], "ab", buffering=0) as file:
                pictures = [picture for request in batch for picture in request.conversation.pictures]
                file.write("".join([*(f"{picture.sha256}\n" for picture in pictures), "!\n"]).encode())
        if "signal" in plan and len(model.sizes) == 2:
            os.kill(os.getpid(), plan["signal"])

    def fails(request: Request) -> ContextOverflow | None:
        bad = any(picture.width == plan.get("bad") for picture in request.conversation.pictures)
        return ContextOverflow(700, 600) if bad else None

    model.before_batch = before_batch
    model.fails = fails
    return model


def poison(ending: str) -> None:
    """Let a picture kill whatever process decodes it, here or elsewhere."""
    good = images.picture_from_bytes

    def bad(data: bytes, name: str) -> Picture:
        if name.endswith(ending):
            os.kill(os.getpid(), signal.SIGKILL)
        return good(data, name)

    bounded.picture_from_bytes = bad  # type: ignore[attr-defined]  # where it is used
    lines = ["def bad(data, name, good=worker.decode_bytes):", f"    if name.endswith({ending!r}):", "        1 / 0"]
    lines += ["    return good(data, name)", "worker.decode_bytes = bad"]
    before, main = worker._MAIN.rsplit("; ", 1)
    worker._MAIN = "{}; exec({!r}); {}".format(before, "\n".join(lines), main)


def run(plan: dict[str, Any], arguments: list[str]) -> int:
    system = FaultySystem(plan)
    files.system.write = system.write  # type: ignore[method-assign]
    files.system.sync = system.sync  # type: ignore[method-assign]
    files.system.replace = system.replace  # type: ignore[method-assign]
    if "poison" in plan:
        poison(plan["poison"])
    journal.SYNC_SECONDS = plan.get("sync_seconds", 0.0)
    # In place of the module that imports torch.
    engine_model: Any = types.ModuleType("dsvl_cli.engine.model")
    engine_model.load_model = lambda *_: make_model(plan)
    sys.modules["dsvl_cli.engine.model"] = engine_model
    from dsvl_cli.cli import main as dsvl

    status = dsvl(["batch", *arguments, "--model", "tiny"])
    assert "torch" not in sys.modules
    if "count" in plan:
        Path(plan["count"]).write_text(str(system.operations))
    return status


def serve() -> int:
    # What a run imports, and what Typer imports to read its options, is there before the first fork.
    import_module("dsvl_cli.batch.captioner")
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        import_module("dsvl_cli.cli").main(["batch", os.devnull, "-o", "rows.jsonl", "--dry-run", "--model", "tiny"])
    for line in sys.stdin:
        plan, arguments, *streams = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in enumerate(streams, 1):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            return run(plan, arguments)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(run(json.loads(sys.argv[1]), sys.argv[2:]) if sys.argv[1:] else serve())

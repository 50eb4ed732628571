"""A long conversation: memory, descriptors, disk and the time of a turn stay flat."""

from __future__ import annotations

import io
import os
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil
import pytest

from dsvl_cli.app import chat as app
from dsvl_cli.app.chat import run_chat
from dsvl_cli.engine.conversation import ChatModel, Conversation, Message, Reply
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.progress import Listener
from dsvl_cli.terminal.chat.context import leave_out_oldest
from dsvl_cli.terminal.console import Console, Environment

SAMPLING = SamplingParams(max_new_tokens=16, temperature=0.0)
TINY = LoadOptions("tiny", dtype="float32", cache=True)


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VisionLanguageModel:
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path / "cache"))
    return load_model(TINY)


def test_a_turn_after_the_overflow_reads_only_what_is_new(
    model: VisionLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[Message] = []
    left_out, cached, drops, sizes = 0, [], 0, []
    monkeypatch.setattr(model, "_context_length", 600)
    for number in range(60):
        messages.append(Message("user", (f"What is {number}? " * 4,)))
        before = left_out
        sent, left_out = leave_out_oldest(Conversation(messages), model, 2, left_out)
        reply = Reply.of(model.stream(sent, replace(SAMPLING, max_new_tokens=2)))
        assert reply.stats is not None
        if left_out > before:
            drops += 1
        elif left_out:
            cached.append(reply.stats.cached_tokens / reply.stats.prompt_tokens)
        sizes.append(folder_size(tmp_path / "cache") if left_out else 0)
        messages.append(Message("assistant", (reply.text,), reply.token_ids, model.fingerprint, "stop"))
    assert drops >= 2
    assert len(cached) > 2 * drops
    assert median(cached) > 0.5
    after = [size for size in sizes if size]
    assert after[0] == after[-1]


@pytest.mark.soak
@pytest.mark.fault("a thousand turns", cases=1000)
def test_a_thousand_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path / "cache"))
    process = psutil.Process()
    times: list[float] = []
    memory: list[int] = []
    descriptors: list[int] = []
    disk: list[int] = []

    class Lines(io.StringIO):
        """Measures whenever the next line is asked for."""

        def __iter__(self) -> Lines:  # type: ignore[override]
            return self

        def __next__(self) -> str:  # type: ignore[override]
            times.append(time.monotonic())
            memory.append(process.memory_info().rss)
            descriptors.append(process.num_fds() if os.name == "posix" else 0)
            disk.append(folder_size(tmp_path / "cache"))
            if len(times) > 1000:
                raise StopIteration
            return f"What is number {len(times)}, and what was the one before?\n"

    def load(name: str, listener: Listener) -> ChatModel:
        return load_model(TINY, listener)

    monkeypatch.setattr(app, "_engine_loader", lambda *_: load)
    variables = {"DSVL_DATA_DIR": str(tmp_path / "data")}
    environment = Environment(Lines(), io.StringIO(), io.StringIO(), variables)
    assert run_chat(Console(environment), [], TINY, SAMPLING, overflow="drop-oldest") == 0
    turns = [after - before for before, after in pairwise(times)]
    early, late = median(turns[200:400]), median(turns[-200:])
    assert late < 2 * early
    assert memory[-1] < memory[300] + 60e6
    assert descriptors[-1] <= descriptors[300] + 2
    assert disk[-1] == disk[300]
    assert disk[-1] < 200e6
    assert folder_size(tmp_path / "data") < 5e6

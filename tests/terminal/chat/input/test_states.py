from __future__ import annotations

import threading

import pytest

from dsvl_cli.engine.progress import Listener
from dsvl_cli.terminal.chat.input.states import StateLines
from tests.terminal.fake_model import Desk, FakeModel


def test_every_model_shows_how_its_loading_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = threading.Event()

    def load(name: str, listener: Listener) -> FakeModel:
        listener.progress("weights", 9, 10)
        shown.wait(10)
        shown.clear()
        return FakeModel(name=name)

    desk = Desk(load=load)
    lines: list[str] = []

    def show(text: str) -> None:
        lines.append(text)
        shown.set()

    monkeypatch.setattr(desk.console, "status", show)
    states = StateLines(desk.chat)
    states.wait()
    desk.loading.start("other")
    states.wait()
    assert [line.partition(" (")[0] for line in lines] == ["weights: 90 %"] * 2
    assert desk.loading.ready is not None
    assert desk.loading.ready.name == "other"

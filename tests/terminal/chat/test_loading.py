from __future__ import annotations

import gc
import sys
import threading
import time

import pytest

from dsvl_cli.engine.progress import Choice, Listener
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.chat.loading import BackgroundModel
from tests.terminal.fake_model import FakeModel


class Ear:
    """Remembers what it hears, and in which thread."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.threads: set[int] = set()

    def note(self, text: str) -> None:
        self.heard.append(text)
        self.threads.add(threading.get_ident())

    def choice(self, choice: Choice) -> None:
        self.note(choice.value)

    def progress(self, what: str, done: int, total: int) -> None:
        raise AssertionError("progress is looked at, not delivered")


def test_what_it_has_to_say_waits_for_room() -> None:
    ear = Ear()

    def load(name: str, listener: Listener) -> FakeModel:
        listener.note("one")
        listener.choice(Choice("dtype", "bfloat16", "why not"))
        listener.progress("weights", 1, 2)
        return FakeModel(name=name)

    loading = BackgroundModel(load, ear)
    loading.start("some")
    assert loading.wait(10)
    assert ear.heard == []
    loading.deliver()
    assert ear.heard == ["one", "bfloat16"]
    assert ear.threads == {threading.get_ident()}
    assert not loading.has_news
    assert loading.ready is not None
    assert loading.ready.name == "some"
    assert loading.progress is None


def test_progress_can_be_looked_at_while_it_loads() -> None:
    go_on = threading.Event()
    changes: list[tuple[str, int, int] | None] = []

    def load(name: str, listener: Listener) -> FakeModel:
        listener.progress("weights", 1, 2)
        go_on.wait(10)
        listener.progress("weights", 2, 2)
        return FakeModel()

    loading = BackgroundModel(load, Ear(), lambda: changes.append(loading.progress))
    loading.start("some")
    while not changes:
        time.sleep(0.001)
    assert loading.loading
    assert not loading.wait(0)
    assert loading.progress == ("weights", 1, 2)
    go_on.set()
    assert loading.wait(10)
    assert changes[:2] == [("weights", 1, 2), None]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (DsvlError("not there", "look elsewhere"), "not there"),
        (RuntimeError("boom"), "some cannot be loaded: RuntimeError: boom"),
        (SystemExit(3), "some cannot be loaded: SystemExit: 3"),
    ],
)
def test_whatever_fails_is_an_error_told_once(raised: BaseException, told: str) -> None:
    def load(name: str, listener: Listener) -> FakeModel:
        raise raised

    loading = BackgroundModel(load, Ear())
    loading.start("some")
    assert loading.wait(10)
    assert loading.has_news
    error = loading.take_error()
    assert error is not None
    assert error.message == told
    assert loading.take_error() is None
    assert loading.ready is None


def test_the_last_model_asked_for_wins_and_only_one_loads_at_a_time() -> None:
    at_once = []
    running = threading.Semaphore(1)

    def load(name: str, listener: Listener) -> FakeModel:
        at_once.append(running.acquire(blocking=False))
        time.sleep(0.02)
        running.release()
        return FakeModel(name=name)

    loading = BackgroundModel(load, Ear())
    for name in ("a", "b", "c"):
        loading.start(name)
    assert loading.wait(10)
    assert loading.ready is not None
    assert loading.ready.name == "c"
    assert at_once == [True, True, True]


def test_the_model_before_is_given_up_before_the_next_loads() -> None:
    loading = BackgroundModel(lambda name, listener: FakeModel(name=name), Ear())
    loading.start("a")
    loading.wait(10)
    loading.start("b")
    assert loading.ready is None or loading.ready.name == "b"


def test_the_interpreter_is_left_as_it_was() -> None:
    before = sys.getswitchinterval(), gc.isenabled()
    during = []

    def load(name: str, listener: Listener) -> FakeModel:
        during.append((sys.getswitchinterval(), gc.isenabled()))
        return FakeModel()

    loading = BackgroundModel(load, Ear())
    loading.start("some")
    loading.wait(10)
    assert (sys.getswitchinterval(), gc.isenabled()) == before
    assert during[0][0] < before[0]
    assert not during[0][1]

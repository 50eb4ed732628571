from __future__ import annotations

import gc
import sys
import threading
import time
import weakref

import pytest

from dsvl_cli.engine.progress import Choice, Listener
from dsvl_cli.errors import DoesNotFit, DsvlError
from dsvl_cli.terminal.chat.loading import BackgroundModel, ModelChoice
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
    assert loading.wait(60)
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
        go_on.wait(60)
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
    assert loading.wait(60)
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
    assert loading.wait(60)
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
    assert loading.wait(60)
    assert loading.ready is not None
    assert loading.ready.name == "c"
    assert at_once == [True, True, True]


GB = 10**9


def in_memory(
    free: int, sizes: dict[str, int], broken: tuple[str, ...] = ()
) -> tuple[BackgroundModel, list[set[str]], Ear]:
    """Return a loader on a machine with so much memory, and the names of what was in memory at each loading."""
    alive: weakref.WeakSet[FakeModel] = weakref.WeakSet()
    beside: list[set[str]] = []

    def load(name: str, listener: Listener) -> FakeModel:
        gc.collect()
        beside.append({model.name for model in alive})
        lacking = sum(model.held_bytes for model in alive) + sizes[name] - free
        if lacking > 0:
            raise DoesNotFit(f"{name} does not fit", "take another", lacking)
        if name in broken:
            raise DsvlError(f"{name} is broken")
        model = _Counted(name=name, held_bytes=sizes[name])
        alive.add(model)
        return model

    ear = Ear()
    return BackgroundModel(load, ear), beside, ear


class _Counted(FakeModel):
    __hash__ = object.__hash__


def used(loading: BackgroundModel) -> str | None:
    assert loading.wait(60)
    return loading.ready.name if loading.ready else None


def while_b_loads() -> tuple[BackgroundModel, threading.Event]:
    """Return a loader that uses `a` and loads `b`, and what lets that one end."""
    go_on = threading.Event()

    def load(name: str, listener: Listener) -> FakeModel:
        if name == "b":
            go_on.wait(60)
        return FakeModel(name=name)

    loading = BackgroundModel(load, Ear())
    loading.start("a")
    assert used(loading) == "a"
    loading.start("b")
    return loading, go_on


def test_the_model_in_use_stays_until_the_next_one_is_ready() -> None:
    loading, go_on = while_b_loads()
    assert loading.loading
    assert loading.ready is not None
    assert loading.ready.name == "a"
    go_on.set()
    assert used(loading) == "b"


def test_the_model_in_use_can_be_kept_while_another_one_loads() -> None:
    loading, go_on = while_b_loads()
    loading.start("a")
    assert not loading.loading
    go_on.set()
    loading.start("c")
    assert used(loading) == "c"


def test_a_model_that_fails_leaves_the_one_in_use() -> None:
    loading, beside, _ = in_memory(10 * GB, {"a": GB, "b": GB}, broken=("b",))
    loading.start("a")
    loading.wait(60)
    loading.start("b")
    assert used(loading) == "a"
    error = loading.take_error()
    assert error is not None
    assert (error.message, error.hint) == ("b is broken", "a stays in use")
    assert beside == [set(), {"a"}]
    loading.start("b")  # and it can be tried again
    assert used(loading) == "a"
    assert len(beside) == 3


@pytest.mark.parametrize(
    ("sizes", "broken", "remains", "beside", "released"),
    [
        pytest.param({"a": 2, "b": 6}, (), "b", [set(), {"a"}], False, id="both fit"),
        pytest.param({"a": 4, "b": 6}, (), "b", [set(), {"a"}, set()], True, id="only one at a time"),
        pytest.param({"a": 4, "b": 9}, (), "a", [set(), {"a"}], False, id="not even alone"),
        pytest.param({"a": 4, "b": 6}, ("b",), "a", [set(), {"a"}, set(), set()], True, id="alone, but it fails"),
    ],
)
def test_a_model_is_released_only_if_that_makes_room(
    sizes: dict[str, int], broken: tuple[str, ...], remains: str, beside: list[set[str]], released: bool
) -> None:
    loading, seen, ear = in_memory(8, sizes, broken)
    loading.start("a")
    loading.wait(60)
    loading.start("b")
    assert used(loading) == remains
    assert seen == beside
    assert (loading.take_error() is None) == (remains == "b")
    loading.deliver()
    assert ("a is released first" in " ".join(ear.heard)) == released


def test_each_model_is_loaded_with_its_options() -> None:
    seen = []

    def load(name: str, listener: Listener, **options: str) -> FakeModel:
        seen.append((name, options))
        return FakeModel(name=name)

    loading = BackgroundModel(load, Ear())
    for name, options in (("a", {"dtype": "float32"}), ("b", None), ("b", {})):
        loading.start(name, options)
        assert loading.wait(60)
    assert seen == [("a", {"dtype": "float32"}), ("b", {"dtype": "float32"}), ("b", {})]
    assert loading.used == ModelChoice("b")


def test_the_interpreter_is_left_as_it_was() -> None:
    before = sys.getswitchinterval(), gc.isenabled()
    during = []

    def load(name: str, listener: Listener) -> FakeModel:
        during.append((sys.getswitchinterval(), gc.isenabled()))
        return FakeModel()

    loading = BackgroundModel(load, Ear())
    loading.start("some")
    loading.wait(60)
    assert (sys.getswitchinterval(), gc.isenabled()) == before
    assert during[0][0] < before[0]
    assert not during[0][1]

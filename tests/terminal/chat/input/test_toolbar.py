from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.progress import Listener
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.chat.input.toolbar import toolbar_text
from tests.terminal.fake_model import Desk, FakeModel, make_picture


def test_model_context_pictures_and_settings() -> None:
    desk = Desk()
    desk.do("hello", "/set temperature 0.5")
    desk.chat.attach([make_picture()])
    desk.chat.measure()
    text = toolbar_text(desk.chat, 100)
    assert text == "fake | 14 tokens used, 986 free | 1 picture attached | temperature 0.5"


@given(st.integers(0, 120))
def test_it_fits(width: int) -> None:
    desk = Desk(FakeModel(name="\x1b[31mm" * 5))
    desk.do("/set temperature 0.5", "/set seed 3")
    text = toolbar_text(desk.chat, width)
    assert len(text) <= max(width - 1, 0)
    assert "\x1b" not in text


def test_it_shows_how_loading_goes() -> None:
    reached, go_on = threading.Event(), threading.Event()

    def load(name: str, listener: Listener) -> FakeModel:
        listener.progress("weights", 1, 4)
        reached.set()
        go_on.wait(10)
        raise DsvlError("no")

    desk = Desk(load=load)
    reached.wait(10)
    assert toolbar_text(desk.chat, 80) == "loading fake: 25% of weights"
    go_on.set()
    desk.loading.wait(10)
    assert toolbar_text(desk.chat, 80) == "no model: /model NAME"


@pytest.mark.parametrize("width", [10, 30])
def test_the_model_comes_first(width: int) -> None:
    assert toolbar_text(Desk().chat, width) == "fake"

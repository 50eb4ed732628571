"""The progress of a batch, from its first second."""

from __future__ import annotations

import io
import time

import pytest

from dsvl_cli.terminal.batch import BatchProgress
from dsvl_cli.terminal.console import Console, Environment
from tests.terminal.window import Window


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def wait_for(window: Window, text: str) -> None:
    deadline = time.monotonic() + 10
    while not any(text in row for row in window.rows):
        assert time.monotonic() < deadline, window.rows
        time.sleep(0.01)


def test_the_bar_is_there_before_the_first_row() -> None:
    window, clock = Window(), Clock()
    progress = BatchProgress(window.console(), 0, "out", clock, batch=4, due=lambda: 2)
    progress.start()
    wait_for(window, "0 of 2, first batch of 2, 0:00")
    clock.now = 12.0
    wait_for(window, "0 of 2, first batch of 2, 0:12")
    progress.update(1, 2, 0, 0)
    assert "1 of 2" in window.rows[-1]
    assert "first batch" not in window.rows[-1]
    progress.close()
    assert window.rows == []


def test_what_was_done_before_counts_and_an_open_end_has_no_total() -> None:
    window = Window()
    progress = BatchProgress(window.console(), 5, "out", Clock(), batch=4)
    progress.start()
    wait_for(window, "5, first batch of 4, 0:00")
    progress.close()


@pytest.mark.parametrize(
    ("columns", "shown"), [(60, "0 of 20, first batch of 4, 1:05"), (20, "0 of 20, 1:05"), (10, "0 of 20")]
)
def test_it_fits(columns: int, shown: str) -> None:
    window, clock = Window(columns), Clock()
    progress = BatchProgress(window.console(), 0, "out", clock, batch=4, due=lambda: 20)
    clock.now = 65.0
    progress.start()
    wait_for(window, shown)
    assert len(window.rows) == 1
    assert window.rows[0].strip() == shown
    progress.close()


def test_without_redrawing_it_is_one_line() -> None:
    window = Window()
    progress = BatchProgress(window.console(plain=True), 0, "out", Clock(), batch=4, due=lambda: 20)
    progress.start()
    progress.close()
    assert window.rows == ["0 of 20, first batch of 4"]


def test_a_log_and_the_quiet_get_nothing_yet() -> None:
    log = io.StringIO()
    environment = Environment(io.StringIO(), io.StringIO(), log, {})
    for console in (Console(environment), Window().console(quiet=True)):
        progress = BatchProgress(console, 0, "out", Clock(), batch=4, due=lambda: 20)
        progress.start()
        progress.close()
    assert log.getvalue() == ""

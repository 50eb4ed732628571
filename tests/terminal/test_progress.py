from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.progress import ConsoleListener
from tests.terminal.window import Window


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def log_of(console_calls: list[tuple[float, int]], total: int) -> list[str]:
    log, clock = io.StringIO(), Clock()
    listener = ConsoleListener(Console(Environment(io.StringIO(), io.StringIO(), log, {})), clock)
    for clock.now, done in console_calls:
        listener.progress("weights", done, total)
    return log.getvalue().splitlines()


def test_one_line_is_redrawn_and_vanishes() -> None:
    window, clock = Window(), Clock()
    listener = ConsoleListener(window.console(), clock)
    for step in range(10):
        clock.now = step
        listener.progress("weights\x1b[2J", step * 10**8, 10**9)
        (row,) = window.rows
        assert row.startswith("weights␛[2J")
        assert f"{10 * step} %" in row
    assert "900 MB of 1.0 GB" in row
    assert "100 MB/s" in row
    assert "0:01 left" in row
    listener.note("half way")
    assert window.rows == ["half way"]
    listener.progress("weights\x1b[2J", 10**9, 10**9)
    window.console().write("answer\n")
    assert window.rows == ["half way", "answer"]


@given(st.integers(1, 200), st.integers(0, 10**12), st.integers(1, 10**12), st.text(max_size=60))
def test_the_line_never_wraps(columns: int, done: int, total: int, name: str) -> None:
    window, clock = Window(columns=columns), Clock()
    listener = ConsoleListener(window.console(), clock)
    for clock.now in (0.0, 5.0):
        listener.progress(name, min(done, total - 1), total)
    assert window.cursor[0] == 0


def test_a_narrow_window_keeps_name_and_share() -> None:
    window = Window(columns=20)
    ConsoleListener(window.console()).progress("weights", 1, 4)
    assert window.rows == ["weights  25 %"]


def test_what_is_behind_a_colon_is_shortened_before_bytes_and_time_go() -> None:
    rows = {}
    for columns in (120, 80, 60, 40):
        window, clock = Window(columns=columns), Clock()
        listener = ConsoleListener(window.console(), clock)
        for clock.now in (0.0, 10.0):
            done = int(clock.now) * 10**8
            listener.progress("quantizing: vision_model.encoder.layers.23.self_attn.out_proj", done, 4 * 10**9)
        (rows[columns],) = window.rows
    assert "layers.23.self_attn.out_proj" in rows[80]
    for columns in (120, 80, 60):
        assert rows[columns].startswith("quantizing: ")
        for field in ("out_proj", "25 %", "1.0 GB of 4.0 GB", "0:30 left"):
            assert field in rows[columns]
    assert rows[40].startswith("quantizing: …")
    assert "out_proj" in rows[40]


def test_a_log_gets_a_line_now_and_then() -> None:
    slow = log_of([(second, second) for second in range(101)], total=100)
    assert [line.split()[1] for line in slow] == [str(percent) for percent in range(0, 101, 10)]
    assert slow[-1] == "weights: 100 % (100 B of 100 B)"
    stalled = log_of([(float(second), 1) for second in range(0, 91, 10)], total=100)
    assert stalled == ["weights: 1 % (1 B of 100 B)"] * 4
    quick = log_of([(done / 1000, done) for done in range(101)], total=100)
    assert [line.split()[1] for line in quick] == ["0", "100"]


def test_nothing_to_do_is_done() -> None:
    assert log_of([(0, 0)], total=0) == ["weights: 100 % (0 B of 0 B)"]


def test_any_thread_may_report() -> None:
    window = Window()
    console = window.console()
    listener = ConsoleListener(console)

    def load(name: str) -> None:
        for done in range(21):
            listener.progress(name, done, 20)
            listener.note(f"{name} {done}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(load, "abcd"))
    console.clear_redrawn_line()
    assert sorted(window.rows) == sorted(f"{name} {done}" for name in "abcd" for done in range(21))

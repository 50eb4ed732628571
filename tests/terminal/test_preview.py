from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.preview import show
from tests.terminal.window import Window


def test_two_pixels_make_a_cell() -> None:
    image = Image.new("RGB", (2, 2), (255, 0, 0))
    image.putpixel((0, 1), (0, 0, 255))
    window = Window(columns=2, lines=4, variables={"COLORTERM": "truecolor"})
    show(window.console(), image)
    first, second = window.bytes.decode().split("▀")[:2]
    assert first == "\x1b[38;2;255;0;0;48;2;0;0;255m"
    assert second.endswith("\x1b[38;2;255;0;0;48;2;255;0;0m")
    assert window.rows == ["▀▀"]


@settings(max_examples=30)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(5, 120), st.integers(5, 60))
def test_the_picture_fits_and_keeps_its_shape(width: int, height: int, columns: int, lines: int) -> None:
    window = Window(columns, lines)
    show(window.console(), Image.new("RGB", (width, height), "green"))
    shown_width, shown_height = len(window.rows[0]), len(window.rows)
    assert set("".join(window.rows)) == {"▀"}
    assert shown_width <= columns
    assert shown_height < lines
    errors = (shown_width - 2 * shown_height * width / height, shown_height - shown_width * height / width / 2)
    assert min(map(abs, errors)) <= 1.5
    assert shown_width == min(columns, 80) or shown_height == lines - 3


def test_a_picture_with_alpha_or_palette_is_shown() -> None:
    for mode in ("RGBA", "P", "L"):
        window = Window(columns=10, lines=8)
        show(window.console(), Image.new(mode, (8, 8)))
        assert window.rows == ["▀" * 10] * 5


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_without_colours_the_way_out_is_named(variables: dict[str, str]) -> None:
    with pytest.raises(DsvlError) as raised:
        show(Window(variables=variables).console(), Image.new("RGB", (8, 8)))
    assert raised.value.hint is not None
    assert "/see N FILE" in raised.value.hint


def test_a_pipe_gets_no_picture() -> None:
    out = io.StringIO()
    with pytest.raises(DsvlError):
        show(Console(Environment(io.StringIO(), out, io.StringIO(), {})), Image.new("RGB", (8, 8)))
    assert out.getvalue() == ""


PROGRAM = """
from PIL import Image
from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.preview import show
show(Console(Environment.system()), Image.new("RGB", (40, 40), "red"))
"""


def run_in_terminal(answer: bytes, stdin_is_terminal: bool = True) -> bytes:
    """Run the program in a terminal that sends `answer` to the first question, and return what it wrote."""
    pty = pytest.importorskip("pty")
    import select
    import termios

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=slave if stdin_is_terminal else subprocess.DEVNULL,
        stdout=slave,
        env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    os.close(slave)
    written = b""
    try:
        while select.select([master], [], [], 30)[0]:
            try:
                written += os.read(master, 65536)
            except OSError:  # the program has ended
                break
            if answer and b"\x1b[c" in written:
                os.write(master, answer)
                answer = b""
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return written


def test_a_terminal_that_does_not_answer_gets_half_blocks() -> None:
    written = run_in_terminal(b"")
    assert "▀".encode() in written
    assert b"\x1bP" not in written


def test_a_terminal_with_sixel_gets_pixels() -> None:
    pytest.importorskip("textual_image")
    written = run_in_terminal(b"\x1b[?62;4c")
    assert b"\x1bP" in written
    assert "▀".encode() not in written


def test_the_terminal_is_not_asked_when_stdin_is_a_pipe() -> None:
    written = run_in_terminal(b"", stdin_is_terminal=False)
    assert "▀".encode() in written
    assert b"\x1b[c" not in written

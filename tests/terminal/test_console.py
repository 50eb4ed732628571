from __future__ import annotations

import io
import subprocess
import sys
import threading
import time

import pytest

from dsvl_cli.engine.progress import Choice
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.progress import ConsoleListener
from tests.terminal.escapes import ESCAPES
from tests.terminal.window import Window


class Pipes:
    """Streams that are no terminals, in the encoding of a locale."""

    def __init__(self, encoding: str = "utf-8", **variables: str) -> None:
        self._out, self._err = io.BytesIO(), io.BytesIO()
        self.environment = Environment(
            stdin=io.StringIO(),
            stdout=io.TextIOWrapper(self._out, encoding=encoding),
            stderr=io.TextIOWrapper(self._err, encoding=encoding),
            variables=variables,
        )

    @property
    def out(self) -> bytes:
        return self._out.getvalue()

    @property
    def err(self) -> str:
        return self._err.getvalue().decode()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_pipe_gets_the_exact_bytes(encoding: str) -> None:
    pipes = Pipes(encoding)
    console = Console(pipes.environment)
    console.heading("na\udce4me.png")
    for text in ("日本\r\n", "\x1b[31m", "é\n"):
        console.write(text)
    assert pipes.out == b"na\xe4me.png\n" + "日本\r\n\x1b[31mé\n".encode()
    assert not pipes.err


def test_a_pipe_gets_each_piece_at_once() -> None:
    pipes = Pipes()
    Console(pipes.environment).write("a")
    assert pipes.out == b"a"


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_a_terminal_gets_no_foreign_control_character(escape: str) -> None:
    window = Window(variables={"NO_COLOR": "1"})
    console = window.console(verbose=True)
    console.write(escape)
    console.heading(escape)
    console.status(escape)
    console.warn(escape)
    console.error(DsvlError(escape, hint=escape))
    ConsoleListener(console).choice(Choice(escape, escape, escape))
    assert not any(character < " " for character in window.bytes.decode() if character != "\n")
    assert not any("\x7f" <= character <= "\x9f" for character in window.bytes.decode())


def test_a_terminal_of_another_encoding_gets_what_it_can_show() -> None:
    window = Window(encoding="latin-1")
    console = window.console()
    console.write("é 日\n")
    console.status("ü 日")
    assert window.bytes == b"\xe9 ?\n\xfc \\u65e5\n"


def test_messages_go_to_stderr_line_by_line() -> None:
    pipes = Pipes()
    console = Console(pipes.environment)
    console.status("one\ntwo [/b]")
    console.warn("careful")
    console.error(DsvlError("it broke " * 20, hint="mend it"))
    assert pipes.err.splitlines() == ["one␊two [/b]", "warning: careful", f"error: {'it broke ' * 20}", "hint: mend it"]
    assert not pipes.out


def test_messages_in_an_ascii_locale_do_not_fail() -> None:
    pipes = Pipes("ascii")
    Console(pipes.environment).status("naïve \udcff")
    assert pipes.err == "na\\xefve \\xff\n"


def test_long_errors_are_wrapped_under_their_beginning() -> None:
    window = Window(columns=30)
    window.console().error(DsvlError("a message that needs more than one line of this window", hint="try less"))
    assert window.rows == [
        "error: a message that needs",
        "       more than one line of",
        "       this window",
        "hint: try less",
    ]


def test_quiet_leaves_warnings_and_errors() -> None:
    pipes = Pipes()
    console = Console(pipes.environment, quiet=True)
    console.status("status")
    ConsoleListener(console).note("note")
    ConsoleListener(console).progress("weights", 1, 2)
    console.warn("careful")
    assert pipes.err == "warning: careful\n"


def test_choices_are_told_to_the_verbose_only() -> None:
    choice = Choice("dtype", "bfloat16", "the CPU has AVX-512-BF16")
    for verbose, told in ((False, ""), (True, "dtype: bfloat16 (the CPU has AVX-512-BF16)\n")):
        pipes = Pipes()
        ConsoleListener(Console(pipes.environment, verbose=verbose)).choice(choice)
        assert pipes.err == told


@pytest.mark.parametrize(
    ("variables", "colour", "redraw"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, False, True),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_what_a_terminal_can(variables: dict[str, str], colour: bool, redraw: bool) -> None:
    window = Window(variables=variables)
    console = window.console()
    console.heading("a.png")
    console.warn("careful")
    assert (console.colour, console.can_redraw, console.status_can_redraw) == (colour, redraw, redraw)
    assert (b"\x1b[" in window.bytes) == colour
    assert window.rows == ["a.png", "warning: careful"]
    plain = window.console(plain=True)
    assert (plain.colour, plain.can_redraw) == (False, False)


def test_a_pipe_can_nothing() -> None:
    console = Console(Pipes(TERM="xterm").environment)
    abilities = (console.answer_is_terminal, console.status_is_terminal, console.colour, console.can_redraw)
    assert not any(abilities)


@pytest.mark.parametrize(
    ("variables", "size"),
    [({"COLUMNS": "33", "LINES": "7"}, (33, 7)), ({}, (80, 24)), ({"COLUMNS": "wide", "LINES": "-1"}, (80, 24))],
)
def test_size_without_a_terminal(variables: dict[str, str], size: tuple[int, int]) -> None:
    console = Console(Pipes(**variables).environment)
    assert (console.width, console.height) == size


def test_the_terminal_says_its_size_itself() -> None:
    pty = pytest.importorskip("pty")
    termios = pytest.importorskip("termios")
    master, slave = pty.openpty()
    with open(master, "rb", buffering=0), open(slave, "w") as stdout:
        termios.tcsetwinsize(slave, (11, 66))
        console = Console(Environment(io.StringIO(), stdout, io.StringIO(), {"COLUMNS": "5"}))
        assert (console.answer_is_terminal, console.width, console.height) == (True, 66, 11)


def wait_until_shown(window: Window, text: str) -> None:
    deadline = time.monotonic() + 20
    while not any(text in row for row in window.rows):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_working_is_seen_and_leaves_no_trace() -> None:
    window = Window()
    console = window.console()
    console.status("before")
    threads = threading.active_count()
    with console.working("looking at [b]\x1b[31m"):
        wait_until_shown(window, "looking at [b]␛[31m")
        console.status("a note")
        wait_until_shown(window, "a note")
    console.write("answer\n")
    assert window.rows == ["before", "a note", "answer"]
    assert threading.active_count() == threads


@pytest.mark.parametrize("options", [{"quiet": True}, {"plain": True}])
def test_working_is_not_shown_to_those_who_want_no_drawing(options: dict[str, bool]) -> None:
    window = Window()
    with window.console(**options).working("looking"):
        time.sleep(0.25)
    assert not window.bytes


def test_working_writes_nothing_when_the_answer_goes_into_a_pipe() -> None:
    window, pipes = Window(), Pipes()
    environment = Environment(io.StringIO(), pipes.environment.stdout, window.environment.stderr, window.variables)
    with Console(environment).working("looking"):
        time.sleep(0.25)
    assert not window.bytes


def test_a_closed_pipe_is_left_to_the_caller() -> None:
    class Closed(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError

    environment = Environment(io.StringIO(), io.TextIOWrapper(Closed()), io.StringIO(), {})
    with pytest.raises(BrokenPipeError):
        Console(environment).write("text")


def test_of_streams_that_were_closed_at_the_start_stdout_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    console = Console(Environment.system())
    with pytest.raises(DsvlError, match="stdout is closed"):  # an answer must not vanish
        console.write("text")
    console.status("text")
    assert console.environment.stdin.read() == ""


def test_a_piped_command_does_not_import_rich() -> None:
    program = """
import sys
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.plain import open_answer
from dsvl_cli.terminal.progress import ConsoleListener
console = Console(Environment.system())
with console.working("reading"):
    ConsoleListener(console).progress("weights", 1, 2)
answer = open_answer(console)
answer.write("text")
answer.close()
console.error(DsvlError("broken"))
sys.exit(int(any(name.partition(".")[0] in ("rich", "prompt_toolkit", "PIL") for name in sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, b"text\n")


@pytest.mark.parametrize("columns", [20, 24, 26, 40, 80])
def test_a_message_breaks_between_words_in_a_narrow_terminal_too(columns: int) -> None:
    window = Window(columns)
    window.console().error(DsvlError("there is no such picture in it", "type the name of one that is there"))
    rows = window.rows
    assert " ".join(" ".join(rows).split()) == (
        "error: there is no such picture in it hint: type the name of one that is there"
    )
    assert all(len(row) <= columns for row in rows)

"""Whatever shows a foreign text on a terminal makes every escape and every unsafe code point visible."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from dsvl_cli.app import sessions as app_sessions
from dsvl_cli.app.doctor import _write_section
from dsvl_cli.cli import main
from dsvl_cli.engine.progress import Choice
from dsvl_cli.errors import DsvlError
from dsvl_cli.sessions.session import SessionSummary
from dsvl_cli.terminal.batch import BatchProgress
from dsvl_cli.terminal.chat.input.toolbar import toolbar_text
from dsvl_cli.terminal.console import Console
from dsvl_cli.terminal.markdown import MarkdownStream
from dsvl_cli.terminal.plain import PlainStream
from dsvl_cli.terminal.progress import ConsoleListener
from dsvl_cli.terminal.sanitize import sanitize
from tests.terminal.escapes import ESCAPES
from tests.terminal.fake_model import Desk, FakeModel
from tests.terminal.window import Window

# What the console itself writes: colours, erasing, wrapping, moving, and carriage returns before an erased line.
OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\??[0-9]*[hlKJABCDG])|\r")
UNSAFE = "".join(chr(code) for code in range(0x110000) if sanitize(chr(code)) != chr(code))
# In pieces, since some sinks cut long lines; entities are resolved by Markdown only.
TEXTS = {
    **ESCAPES,
    **{f"unsafe {start:x}": UNSAFE[start : start + 512] for start in range(0, len(UNSAFE), 512)},
    "entities": "&#27;[31m&#x9b;31m&#x202e;&lrm;&#x3164;",
}


def show_markdown(console: Console, text: str) -> None:
    for each in (
        text,
        f"`{text}`",
        f"# {text}",
        f"[{text}]({text})",
        f"```{text}\n{text}\n```",
        f"| {text} |\n|---|\n",
    ):
        stream = MarkdownStream(console)
        stream.write(each)
        stream.close()


def show_plain(console: Console, text: str) -> None:
    stream = PlainStream(console, sentences=True)
    stream.write(text)
    stream.close(interrupted=True)


def show_progress(console: Console, text: str) -> None:
    listener = ConsoleListener(console)
    listener.note(text)
    listener.choice(Choice(text, text, text))
    listener.progress(text, 1, 10)
    listener.progress(text, 10, 10)


def show_batch(console: Console, text: str) -> None:
    progress = BatchProgress(console, 0, text)
    progress.update(1, 2, 0, 0)
    progress.error(text)
    progress.say(text)
    progress.close()


def show_sessions(console: Console, text: str) -> None:
    now = datetime.now(UTC)
    console.draw(app_sessions._table([SessionSummary("id", text, text, text, now, now, 2, 1)], console))


def show_spinner(console: Console, text: str) -> None:
    with console.working(text):
        time.sleep(0.15)


SINKS: dict[str, Callable[[Console, str], object]] = {
    "answer": Console.write,
    "heading": Console.heading,
    "status": Console.status,
    "request": Console.say,
    "warning": Console.warn,
    "error": lambda console, text: console.error(DsvlError(text, text)),
    "traceback": Console.traceback,
    "Markdown": show_markdown,
    "plain answer": show_plain,
    "progress": show_progress,
    "batch": show_batch,
    "sessions": show_sessions,
    "doctor": lambda console, text: _write_section(console, text, [(text, text)]),
}


def assert_harmless(shown: str) -> None:
    rest = OWN.sub("", shown)
    assert [hex(ord(character)) for character in rest if sanitize(character) != character] == []


@pytest.mark.fault("a character that commands or deceives a terminal", cases=len(TEXTS))
@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_no_sink_lets_a_foreign_character_through(sink: Callable[[Console, str], object], encoding: str) -> None:
    texts = TEXTS if encoding == "utf-8" else ESCAPES
    for text in texts.values():
        window = Window(encoding=encoding, variables={"TERM": "xterm"})
        sink(window.console(verbose=True), text)
        assert_harmless(window.bytes.decode(encoding))


@pytest.mark.fault("a character that commands or deceives a terminal")
def test_nor_does_the_spinner() -> None:
    window = Window()
    show_spinner(window.console(), "".join(ESCAPES.values()))
    assert_harmless(window.bytes.decode())


@pytest.mark.fault("a character that commands or deceives a terminal", cases=len(TEXTS))
def test_nor_does_the_toolbar() -> None:
    for text in TEXTS.values():
        shown = toolbar_text(Desk(FakeModel(name=text)).chat, 10_000)
        assert_harmless(shown)
        assert "\n" not in shown


@pytest.mark.fault("a character that commands or deceives a terminal", cases=len(ESCAPES))
@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["", "debug"])
def test_nor_do_errors_of_the_command_line(capsys: pytest.CaptureFixture[str], debug: list[str]) -> None:
    escapes = list(ESCAPES.values())
    for start in range(0, len(escapes), 10):
        joined = "".join(escapes[start : start + 10])
        name = "".join(letter for letter in joined if letter not in "\0\ud800\udc9b") + ".png"
        for arguments in (["describe", name], ["describe", "a.png", "--dtype", name], ["chat", f"--{name}"], [name]):
            main([*arguments, *debug])
    captured = capsys.readouterr()
    assert_harmless(captured.err.replace("\n", ""))
    assert_harmless(captured.out.replace("\n", ""))


def test_all_texts_are_there() -> None:
    assert len(ESCAPES) >= 78
    assert len(UNSAFE) > 6000

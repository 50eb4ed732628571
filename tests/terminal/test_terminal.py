"""The chat in a real pseudo-terminal, with a fake model."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.terminal.fake_model import picture_bytes

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX"),
    pytest.mark.timeout(240),
]
if os.name == "posix":
    from tests.terminal.screen import Screen

ROOT = Path(__file__).parents[2]
CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "my cat.png").write_bytes(picture_bytes(64, 48))
    (tmp_path / "dog.png").write_bytes(picture_bytes(20, 10, "blue"))
    return tmp_path


def start(folder: Path, *, columns: int = 80, term: str = "xterm-256color", **config: object) -> Screen:
    variables = {
        "PATH": os.environ["PATH"],
        "TERM": term,
        "LANG": "C.UTF-8",
        "DSVL_DATA_DIR": str(folder / "data"),
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
    }
    return Screen([sys.executable, "-m", "tests.terminal.fake_chat", json.dumps(config)], variables, columns)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("columns", "term"), [(80, "xterm-256color"), (40, "xterm-256color"), (80, "dumb"), (40, "dumb")]
)
def test_a_whole_chat(pictures: Path, columns: int, term: str) -> None:
    with start(pictures, columns=columns, term=term, load_delay=0.3) as screen:
        screen.wait_for(">")
        screen.type(f"'{pictures}/my cat.png' {pictures}/dog.png what differs?\r")
        screen.wait_for("You said: what")
        screen.type("/images\r")
        screen.wait_for("20x10")
        screen.type("/undo\r")
        screen.wait_for("attached")
        screen.type("and now, what is there to be seen?\r/set max_new_tokens 2\r")
        screen.wait_for("max_new_tokens is 2")
        screen.type("/retry\r")
        screen.wait_for("(cut off)")
        screen.type("/continue\r")
        screen.rest()
        screen.type(CTRL_D)
        assert screen.end() == 0
        shown = words(screen.text())
    for text in ("(64x48)", "(20x10)", "are attached again", "You said: what differs?", "/continue resumes the answer"):
        assert text in shown
    assert shown.index("You said: what differs?") < shown.index("removed: ") < shown.index("(cut off)")
    if term == "dumb":
        assert b"\x1b" not in screen.raw


def test_ctrl_c_stops_an_answer_and_the_next_turn_works(tmp_path: Path) -> None:
    answers = ["word " * 200, "Fine."]
    with start(tmp_path, answers=answers, delay=0.02) as screen:
        screen.wait_for(">")
        screen.type("talk\r")
        screen.wait_for("word word")
        screen.type(CTRL_C)
        screen.wait_for("(interrupted)")
        screen.type("and now?\r")
        screen.wait_for("Fine.")
        screen.wait_for_prompt()
        screen.type(CTRL_C)
        screen.wait_for("press Ctrl-C again")
        screen.type(CTRL_C)
        assert screen.end() == 0
    with closing(sqlite3.connect(tmp_path / "data" / "sessions.sqlite3")) as store:
        reasons = [row[0] for row in store.execute("SELECT finish_reason FROM messages ORDER BY id")]
    assert reasons == [None, "interrupted", None, "stop"]


def test_an_early_message_waits_and_can_be_taken_back(tmp_path: Path) -> None:
    with start(tmp_path, load_delay=3.0) as screen:
        screen.wait_for("loading fake")
        screen.type("early\r")
        screen.wait_for("waiting for fake")
        screen.type(CTRL_C)
        screen.wait_for("in the input line again")
        screen.rest()
        assert screen.visible().count("> early") == 2
        screen.type(" bird\r")
        screen.wait_for("You said: early bird")


def test_keys_typed_during_an_answer_wait_for_the_prompt(tmp_path: Path) -> None:
    with start(tmp_path, answers=["slow " * 30 + "end."], delay=0.03) as screen:
        screen.wait_for(">")
        screen.wait_for("tokens used")
        screen.type("go\r")
        screen.wait_for("slow")
        screen.type("next one\r")
        screen.wait_for("You said: next one")
        answer = screen.text().partition("> go")[2].partition("> next one")[0]
    assert words(answer) == words("slow " * 30 + "end.")


def test_a_load_error_is_told_below_the_prompt_and_another_model_answers(tmp_path: Path) -> None:
    with start(tmp_path, model="gone", load_error="gone", load_delay=0.5) as screen:
        screen.wait_for("error: gone is not to be had")
        screen.type("/model fake\r")
        screen.wait_for("fake is a fake")
        screen.type("hello\r")
        screen.wait_for("You said: hello")


def test_a_long_line_that_is_pasted_stays_one_message(tmp_path: Path) -> None:
    with start(tmp_path, columns=40, answers=["ok"], context_length=5000) as screen:
        screen.wait_for(">")
        screen.type(f"\x1b[200~{'long line ' * 1000}\x1b[201~\r")
        screen.wait_for("ok")
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("when", ["at the prompt", "in an answer"])
def test_a_signal_leaves_with_what_was_said_saved(tmp_path: Path, number: int, status: int, when: str) -> None:
    with start(tmp_path, answers=["hi", "word " * 500], delay=0.02, signals=True) as screen:
        screen.wait_for(">")
        screen.type("one\r")
        screen.wait_for("hi")
        if when == "in an answer":
            screen.type("two\r")
            screen.wait_for("word word")
        os.kill(screen.pid, number)
        assert screen.end() == status
    with closing(sqlite3.connect(tmp_path / "data" / "sessions.sqlite3")) as store:
        (messages,) = store.execute("SELECT count(*) FROM messages").fetchone()
    assert messages == (4 if when == "in an answer" else 2)


def test_the_next_chat_continues(pictures: Path) -> None:
    with start(pictures) as screen:
        screen.wait_for(">")
        screen.type(f"{pictures}/dog.png one\r")
        screen.wait_for("You said: one")
        screen.type(CTRL_D)
        screen.end()
    with start(pictures, options={"go_on": True}) as screen:
        screen.wait_for("fake | ")
        screen.type("/images\r")
        screen.wait_for("20x10")
        screen.type("two\r")
        screen.wait_for("You said: two")
        screen.type(CTRL_D)
        screen.end()
    with closing(sqlite3.connect(pictures / "data" / "sessions.sqlite3")) as store:
        assert store.execute("SELECT count(DISTINCT session), count(*) FROM messages").fetchone() == (1, 4)


def test_plain_draws_nothing_anew(tmp_path: Path) -> None:
    with start(tmp_path, plain=True, answers=["One. Two."]) as screen:
        screen.wait_for(">")
        screen.type("hello\r")
        screen.wait_for("One. Two.")
        screen.type(CTRL_D)
        assert screen.end() == 0
    assert b"\x1b" not in screen.raw


def test_the_status_bar_stays_while_a_prompt_is_read(tmp_path: Path) -> None:
    readings = [[0, 623, 1, 2], [0, 623, 2, 2], [312, 623, 0, 0], [600, 623, 0, 0]]
    with start(tmp_path, readings=readings, read_delay=0.5, answers=["Done."]) as screen:
        screen.wait_for("tokens used")
        screen.type("what?\r")
        screen.wait_for("looking at picture 2 of 2, 0:0")
        screen.wait_for("reading 312 of 623 tokens, 0:0")
        lines = [line for line in screen.visible().splitlines() if line]
        assert "reading 312 of 623 tokens" in lines[-2]
        assert lines[-2].endswith("Ctrl-C stops")
        assert lines[-1].startswith("fake | ")
        screen.wait_for("Done.")
        screen.wait_for_prompt()
        assert "reading" not in screen.text()
        assert screen.text().count("fake | ") == 1


def test_ctrl_c_stops_the_reading(tmp_path: Path) -> None:
    with start(tmp_path, readings=[[312, 623, 0, 0]] * 50, read_delay=0.2, answers=["Done."]) as screen:
        screen.wait_for("tokens used")
        screen.type("what?\r")
        screen.wait_for("reading 312 of 623 tokens")
        screen.type(CTRL_C)
        screen.wait_for("in the input line again")
        screen.wait_for("> what?")
        assert "Done." not in screen.text()


@pytest.mark.parametrize("how", [{"term": "dumb"}, {"plain": True}])
def test_without_redrawing_each_state_is_one_line_and_no_prompt_is_repeated(
    tmp_path: Path, how: dict[str, object]
) -> None:
    """Six lone prompts stood below each other while a model loaded."""
    with start(tmp_path, load_delay=1.0, answers=["One. Two.", "Three."], **how) as screen:  # type: ignore[arg-type]
        screen.wait_for(">")
        screen.rest(0.5)
        screen.type("hello\r")
        screen.wait_for("free")
        screen.type("more\r")
        screen.wait_for("Three.")
        screen.rest()
        screen.type("/model other\r")
        screen.wait_for("other is a fake")
        screen.rest()
        screen.type(CTRL_D)
        assert screen.end() == 0
    lines = [line for line in screen.text().splitlines() if not line.startswith("weights: ")]
    assert lines[:9] == [
        "loading fake",
        "fake is a fake",
        "ready",
        "> hello",
        "reading",
        "answering",
        "One. Two.",
        "3 tokens used, 997 free",
        "> more",
    ]
    assert lines.count(">") == 1  # the last one, at which the chat was left
    assert lines.count("ready") == 2
    assert lines[-4:-1] != [">", ">", ">"]
    assert b"\x1b" not in screen.raw


def test_nothing_of_the_states_goes_into_a_pipe(tmp_path: Path) -> None:
    config = json.dumps({"load_delay": 0.3, "plain": True, "answers": ["One."]})
    variables = {**os.environ, "DSVL_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.terminal.fake_chat", config],
        input=b"hello\n",
        capture_output=True,
        env=variables,
        check=True,
        timeout=120,
    )
    assert done.stdout == b"One.\n"
    assert not {"loading fake", "ready", "reading", "answering"} & set(done.stderr.decode().splitlines())


def test_a_dialogue_comes_back_with_its_last_exchange(tmp_path: Path) -> None:
    with start(tmp_path, answers=["A red circle."], model="other") as screen:
        screen.wait_for("other | ")
        screen.type("what is it?\r/set temperature 0.5\r")
        screen.wait_for("temperature is 0.5")
        screen.type(CTRL_D)
        screen.end()
    with start(tmp_path, options={"go_on": True}) as screen:
        screen.wait_for("other | ")
        shown = screen.text()
        assert "continuing what is it? (2 messages, 0 pictures)" in shown
        assert "restored: model other, temperature 0.5" in shown
        assert "> what is it?\nA red circle.\n" in shown


@pytest.mark.parametrize(("columns", "is_shown"), [(100, True), (60, True), (40, True), (38, False), (20, False)])
def test_an_empty_line_says_what_can_be_done_where_that_fits(tmp_path: Path, columns: int, is_shown: bool) -> None:
    with start(tmp_path, columns=columns) as screen:
        screen.wait_for("\nfake")  # in the toolbar
        screen.rest()
        assert ("/help, drop a picture, Ctrl-D leaves" in screen.text()) == is_shown
        screen.type("exit\r")
        assert screen.end() == 0
        assert "/help, drop" not in screen.text()


def test_a_message_about_no_picture_is_edited_and_sent(pictures: Path) -> None:
    with start(pictures, columns=200) as screen:  # wide enough for a path of any length
        screen.wait_for(">")
        screen.type(f"@{pictures}/dgo.png what?\r")
        screen.wait_for("/text LINE sends a line as it is")
        screen.rest()
        assert screen.visible().count("dgo.png what?") == 2
        screen.type("\x7f" * len("dgo.png what?") + "dog.png what?\r")
        screen.wait_for("You said: what?")
        screen.type("quit\r")
        assert screen.end() == 0

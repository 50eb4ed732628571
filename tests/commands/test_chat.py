"""`dsvl chat` as a script, with the embedded model: the whole way from the command line to the kept conversation."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from dsvl_cli.cli import main
from tests.checkpoints import write_base

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CIRCLE = str(EXAMPLES / "red-circle.png")
TINY = ["--model", "tiny", "--dtype", "float32"]


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSVL_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def chat(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(script.encode()), encoding="utf-8"))
    return main(["chat", *arguments, *(TINY if "--model" not in arguments else [])])


def test_every_line_is_a_message_and_every_answer_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "What colour is the circle?\nWhat colour is the background?\n", CIRCLE) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "red" in first.lower()
    assert "white" in second.lower()


def test_a_conversation_goes_on_another_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "Describe this image.\n", CIRCLE) == 0
    assert "red circle" in capsys.readouterr().out
    assert chat(monkeypatch, "What colour is the background?\n", "--continue", "--json") == 0
    turn = json.loads(capsys.readouterr().out)
    assert "white" in json.dumps(turn).lower()
    assert main(["sessions", "list", "--json"]) == 0
    (session,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert session["messages"] == 4
    assert session["pictures"] == 1


def test_nothing_is_kept_if_so_wished(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_folder: Path
) -> None:
    assert chat(monkeypatch, "Describe this image.\n", CIRCLE, "--no-save") == 0
    assert not data_folder.exists() or not list(data_folder.iterdir())


def test_a_line_that_fails_does_not_end_the_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "/bogus\n/image missing.png\nDescribe this image.\n", CIRCLE) == 1
    captured = capsys.readouterr()
    assert "red circle" in captured.out
    assert "/bogus" in captured.err
    assert "missing.png" in captured.err


def test_a_base_model_is_refused_with_the_name_of_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "some-base"
    folder.mkdir()
    write_base(folder)
    assert chat(monkeypatch, "Hello\n", "--model", str(folder)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "base model" in captured.err
    assert "some" in captured.err


@pytest.mark.parametrize("arguments", [["--continue"], ["--session", "nobody"], ["--continue", "--session", "x"]])
def test_what_was_not_kept_cannot_be_continued(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert chat(monkeypatch, "Hello\n", *arguments) in (1, 2)
    assert capsys.readouterr().err.startswith("error: ")


def test_another_model_is_taken_by_a_name_out_of_config(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text('[aliases]\nmine = "tiny"\n')
    monkeypatch.setenv("DSVL_CONFIG_DIR", str(tmp_path))
    script = f"/model Mine\n/image {CIRCLE}\nWhat colour is the circle?\n"
    assert chat(monkeypatch, script, "--model", str(tmp_path / "nothing"), "--dtype", "float32") == 0
    assert "red" in capsys.readouterr().out.lower()


def test_a_chat_is_continued_with_the_model_and_settings_that_it_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default model is not on this machine: to load it would fail, or download it."""
    assert chat(monkeypatch, "What colour is the circle?\n/set max_new_tokens 1\n", CIRCLE) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"/set max_new_tokens\n/model\nAnd now?\n")))
    assert main(["chat", "--continue"]) == 0
    captured = capsys.readouterr()
    assert "max_new_tokens is 1\n" in captured.err
    assert "tiny" in captured.err
    assert captured.out.strip()


def test_a_model_that_does_not_exist_leaves_the_one_in_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = "What colour is the circle?\n/model tinny\n/model ./gone\nWhat colour is the background?\n"
    assert chat(monkeypatch, script, CIRCLE) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "white" in captured.out.splitlines()[1].lower()
    assert "there is no model 'tinny'" in captured.err


def test_a_question_on_the_command_line_comes_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (CIRCLE, "-p", "What colour is the circle?", "--json")
    assert chat(monkeypatch, "What colour is the background?\n", *arguments) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["question"], first["pictures"]) == ("What colour is the circle?", [CIRCLE])
    assert "red" in first["text"].lower()
    assert "white" in second["text"].lower()


@pytest.mark.parametrize(
    "arguments", [["gone.png", "-p", "What is it?"], ["-p", "What is in gone.png?"], ["gone.png"], [CIRCLE, "gone.png"]]
)
def test_nothing_is_asked_about_a_picture_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    script = "What is it?\n" if "-p" not in arguments else ""
    assert chat(monkeypatch, script, *arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "gone.png: no such file" in captured.err


def test_a_line_with_a_picture_that_is_not_there_is_an_error_of_that_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f"examples/nope.png what is it?\n@nope what?\n{CIRCLE} What colour is the circle?\n"
    assert chat(monkeypatch, script) == 1
    captured = capsys.readouterr()
    assert captured.out.lower().count("\n") == 1
    assert "red" in captured.out.lower()
    assert captured.err.count("/text LINE sends a line as it is") == 2


def test_a_question_in_place_of_a_picture_points_to_the_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "", CIRCLE, "what is it?") == 2
    assert f'dsvl chat {CIRCLE} -p "what is it?"' in capsys.readouterr().err


@pytest.mark.parametrize("name", ["red-circle.png", "purple-ring.jpg", "green-star.webp"])
def test_a_picture_on_stdin_is_refused_in_one_line_with_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    data = (EXAMPLES / name).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)), encoding="utf-8"))
    assert main(["chat", *TINY]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("error: ") == 1
    assert "dsvl describe - <" in captured.err


def test_other_bytes_on_stdin_are_refused_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "one\0two\nthree\n") == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("error: ")) == ("", 1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Is {}/red-circle.png a good name?", ["red", "circle"]),
        ("How do {}/red-circle.png and {}/two-shapes.jpg differ?", ["first", "red", "second", "blue"]),
        ("What is in ({}/number-42.png)?", ["42"]),
        ("What colour is the circle in @{}/red-circle.png, please?", ["red"]),
        ("file://{}/number-42.png What is in this image?", ["42"]),
    ],
)
def test_the_model_sees_what_a_line_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, words: list[str]
) -> None:
    assert chat(monkeypatch, line.replace("{}", str(EXAMPLES)) + "\n") == 0
    answer = capsys.readouterr().out.lower()
    assert all(word in answer for word in words)

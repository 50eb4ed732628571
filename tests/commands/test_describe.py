"""`dsvl describe` with the embedded model, which really sees: what comes out, where, and with which exit status."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from dsvl_cli.cli import main
from dsvl_cli.engine.options import DEFAULT_PROMPT
from tests.checkpoints import write_base

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CIRCLE = str(EXAMPLES / "red-circle.png")
STAR = str(EXAMPLES / "green-star.webp")
RING = str(EXAMPLES / "purple-ring.jpg")
NUMBER = str(EXAMPLES / "number-42.png")
TINY = ["--model", "tiny", "--dtype", "float32"]


def describe(*arguments: str) -> int:
    return main(["describe", *arguments, *TINY])


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Bytes for stdin; write to it and rewind it."""
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data, encoding="utf-8"))
    return data


@pytest.mark.parametrize(
    ("picture", "words"),
    [(CIRCLE, ["red", "circle"]), (STAR, ["green", "star"]), (NUMBER, ["42"])],
    ids=["circle", "star", "number"],
)
def test_the_answer_says_what_is_there(capsys: pytest.CaptureFixture[str], picture: str, words: list[str]) -> None:
    assert describe(picture) == 0
    captured = capsys.readouterr()
    assert all(word in captured.out.lower() for word in words)
    assert captured.out.endswith("\n")
    assert captured.out.count("\n") == 1


def test_the_note_about_tiny_comes_once_a_day_and_not_before_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path))
    assert describe(CIRCLE, "--dtype", "float16", "--attn", "flash_attention_2") == 1
    assert "demo model" not in capsys.readouterr().err
    for times in (1, 0):
        assert describe(CIRCLE) == 0
        assert (
            capsys.readouterr().err.count("tiny is a demo model: it knows drawn shapes and numbers, not photo") == times
        )
    (tmp_path / "shown" / "tiny.txt").write_text("2000-01-01")
    assert describe(CIRCLE) == 0
    assert "demo model" in capsys.readouterr().err


def test_a_question_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, "-p", "What colour is the circle?", "-q") == 0
    captured = capsys.readouterr()
    assert "red" in captured.out.lower()
    assert "demo model" not in captured.err


def test_the_prompt_can_come_from_stdin(capsys: pytest.CaptureFixture[str], stdin: io.BytesIO) -> None:
    stdin.write(b"What colour is the circle?\n")
    stdin.seek(0)
    assert describe(CIRCLE, "-p", "-", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["prompt"] == "What colour is the circle?"
    assert "red" in row["text"].lower()


def test_a_picture_can_come_from_stdin(capsys: pytest.CaptureFixture[str], stdin: io.BytesIO) -> None:
    stdin.write(Path(STAR).read_bytes())
    stdin.seek(0)
    assert describe("-") == 0
    assert "star" in capsys.readouterr().out


def test_several_pictures_are_answered_under_their_paths(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, STAR) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.splitlines()[0] == CIRCLE
    assert second.splitlines()[0] == STAR
    assert "circle" in first.splitlines()[1]
    assert "star" in second.splitlines()[1]


def test_a_glob_is_expanded_in_order_of_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(str(EXAMPLES / "*e*.png"), "--json", "--max-tokens", "1") == 0
    paths = [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()]
    assert paths == sorted(str(p) for p in EXAMPLES.glob("*e*.png"))
    assert len(paths) > 1


@pytest.mark.parametrize("way", ["marks", "together"])
def test_one_question_about_two_pictures(capsys: pytest.CaptureFixture[str], way: str) -> None:
    prompt = (
        "What is the difference between <image> and <image>?" if way == "marks" else "What is in the first picture?"
    )
    together = ["--together"] if way == "together" else []
    assert describe(CIRCLE, STAR, "-p", prompt, *together, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["paths"] == [CIRCLE, STAR]
    assert row["stats"]["prompt_tokens"] > 2 * 64
    assert "circle" in row["text"]


def test_json_tells_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, "--json", "--temperature", "0.5", "--max-tokens", "4") == 0
    captured = capsys.readouterr()
    row = json.loads(captured.out)
    assert row["path"] == CIRCLE
    assert row["prompt"] == DEFAULT_PROMPT
    assert (row["model"], row["dtype"], row["device"]) == ("tiny", "float32", "cpu")
    assert row["finish_reason"] == "length"
    assert row["stats"]["generated_tokens"] == 4
    again = describe(CIRCLE, "--json", "--temperature", "0.5", "--max-tokens", "4", "--seed", str(row["seed"]))
    assert again == 0
    assert json.loads(capsys.readouterr().out)["text"] == row["text"]


def test_a_picture_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(CIRCLE).read_bytes()[:200])
    missing = str(tmp_path / "missing.png")
    assert describe(str(broken), CIRCLE, missing) == 1
    captured = capsys.readouterr()
    assert "circle" in captured.out
    assert str(broken) not in captured.out
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert [str(broken) in errors[0], missing in errors[1], len(errors)] == [True, True, 2]


def test_a_failed_picture_is_a_row_of_json_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.png")
    assert describe(missing, CIRCLE, "--json", "--max-tokens", "1") == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["path"] == missing
    assert "no such file" in first["error"]
    assert "text" in second


def test_nothing_is_loaded_when_no_picture_can_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("dsvl_cli.engine.model.load_model", fail)
    assert describe(str(tmp_path / "missing.png")) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_notes_about_a_picture_are_told_on_stderr(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert describe(str(tmp_path / "moving.gif"), "--max-tokens", "1") == 0
    captured = capsys.readouterr()
    assert "first of 2 frames" in captured.err
    assert "frames" not in captured.out


def test_stats_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, "--stats", "--verbose") == 0
    captured = capsys.readouterr()
    assert "tokens/s" in captured.err
    assert "dtype: float32" in captured.err
    assert "tokens/s" not in captured.out


def test_a_file_name_that_is_not_utf8_stays_valid_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/bad-\xff\n.png")
    try:
        Path(name).write_bytes(Path(CIRCLE).read_bytes())
    except OSError:
        pytest.skip("the file system takes only UTF-8 names")
    assert describe(name, "--json", "--max-tokens", "1") == 0
    out = capsys.readouterr().out
    assert json.loads(out)["path"] == name
    assert out.isascii()


def test_a_base_model_completes_the_prompt(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_base(tmp_path)
    assert main(["describe", CIRCLE, "--model", str(tmp_path), "-p", "A red", "--max-tokens", "3", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["prompt"] == "A red"
    # The picture, the prompt and a beginning-of-sentence token at most: no system text.
    assert row["stats"]["prompt_tokens"] < 64 + 5


def test_what_does_not_fit_is_told_with_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, "-p", "word " * 5000) == 1
    captured = capsys.readouterr()
    assert "4,096" in captured.err
    assert captured.out == ""


def test_an_answer_that_was_cut_off_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, "--max-new-tokens", "3") == 0
    captured = capsys.readouterr()
    assert "the answer was cut off at 3 tokens" in captured.err
    assert "--max-new-tokens" in captured.err
    assert describe(CIRCLE, STAR, "--max-new-tokens", "3") == 0
    assert capsys.readouterr().err.count("2 of 2 answers were cut off at 3 tokens") == 1
    assert describe(CIRCLE, "--max-new-tokens", "3", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["finish_reason"] == "length"
    assert "cut off" not in captured.err
    assert describe(CIRCLE) == 0
    assert "cut off" not in capsys.readouterr().err


def test_an_unknown_model_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", CIRCLE, "--model", "tinny"]) != 0
    assert "tiny" in capsys.readouterr().err


def run(*arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dsvl_cli", "describe", *arguments, *TINY]
    return subprocess.run(command, input=data, capture_output=True, timeout=240, check=False)


def test_a_pipe_gets_the_answer_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path))
    result = run("-", data=Path(CIRCLE).read_bytes())
    assert result.returncode == 0
    assert result.stdout.decode().rstrip("\n").count("\n") == 0
    assert b"circle" in result.stdout
    assert b"\x1b" not in result.stdout + result.stderr
    # Nothing of the libraries' chatter: one line, and it is ours.
    assert result.stderr.decode().splitlines() == [
        "tiny is a demo model: it knows drawn shapes and numbers, not photographs"
    ]


@pytest.mark.skipif(os.name == "nt", reason="pipes and signals of Unix")
def test_a_pipe_that_closes_early_is_quiet_and_ctrl_c_ends_at_once() -> None:
    command = [sys.executable, "-m", "dsvl_cli", "describe", CIRCLE, STAR, RING, "-q", *TINY]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().decode().strip() == CIRCLE
    process.stdout.close()
    assert process.wait(timeout=240) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == b""


@pytest.mark.parametrize(
    ("settings", "arguments", "announced"),
    [
        ("system = 'Lie.'\nprompt = 'What?'", [], "system prompt and prompt from .dsvl.toml in this folder"),
        ("system = 'Lie.'\nprompt = 'What?'", ["-p", "What colour is it?"], "system prompt from .dsvl.toml"),
        ("prompt = 'What?'", ["-p", "What colour is it?"], ""),
        ("prompt = 'What?'", ["-q"], ""),
        ("", [], ""),
    ],
)
def test_texts_that_come_with_a_folder_are_announced(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: str,
    arguments: list[str],
    announced: str,
) -> None:
    (tmp_path / ".dsvl.toml").write_text(f"[prompts]\n{settings}\n")
    monkeypatch.chdir(tmp_path)
    main(["describe", "missing.png", *TINY, *arguments])
    err = capsys.readouterr().err
    assert (announced in err) if announced else (".dsvl.toml" not in err)
    assert err.count(".dsvl.toml") <= 1


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_without_redrawing_each_state_is_one_line() -> None:
    from tests.terminal.screen import Screen

    variables = {**os.environ, "TERM": "dumb", "LANG": "C.UTF-8", "PYTHONPATH": str(EXAMPLES.parent)}
    with Screen([sys.executable, "-m", "dsvl_cli", "describe", CIRCLE, *TINY], variables, columns=120) as screen:
        assert screen.end(120) == 0
        lines = screen.text().splitlines()
    assert [line for line in lines if not line.startswith("tiny is a demo")] == [
        "loading tiny",
        "reading",
        "answering",
        "A red circle on a white background.",
    ]


def test_what_is_not_streamed_is_complete_and_nothing_else_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, "--no-stream", "-q") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("A red circle on a white background.\n", "")


def test_addresses_of_files_and_data_are_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "my star.webp").write_bytes(Path(STAR).read_bytes())
    data = f"data:image/png;base64,{base64.b64encode(Path(NUMBER).read_bytes()).decode()}"
    assert describe(f"file://{tmp_path}/my%20star.webp", data, "--json") == 0
    star, number = map(json.loads, capsys.readouterr().out.splitlines())
    assert (star["path"], "star" in star["text"]) == (f"{tmp_path}/my star.webp", True)
    assert "42" in number["text"]
    assert number["path"].startswith("data:image/png#")
    assert describe("file:///no/such.png", "data:image/png;base64,AAAA") == 1
    assert capsys.readouterr().err.count("error: ") == 2


@pytest.mark.parametrize("name", ["Screenshot at 9.41.05\u00a0AM.png", "cafe\u0301 one.png"])
def test_other_spaces_and_accents_in_a_name_do_not_hide_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    (tmp_path / name.replace("\u00a0", "\u202f")).write_bytes(Path(NUMBER).read_bytes())
    typed = unicodedata.normalize("NFC", name.replace("\u00a0", " "))
    assert describe(str(tmp_path / typed)) == 0
    assert "42" in capsys.readouterr().out


@pytest.mark.parametrize("question", ["what is it?", "Describe this", "Why?", "is it red/blue?"])
def test_a_question_in_place_of_a_picture_points_to_the_option(
    capsys: pytest.CaptureFixture[str], question: str
) -> None:
    assert describe(CIRCLE, question) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f'dsvl describe {CIRCLE} -p "{question}"' in captured.err


@pytest.mark.parametrize("name", ["no such.png", "gone?.png", "folder/*", "gone"])
def test_a_missing_picture_is_no_question(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert describe(name) == 1
    assert "-p" not in capsys.readouterr().err

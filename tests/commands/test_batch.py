"""`dsvl batch` with the embedded model, which really sees: each answer under its own file's name."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dsvl_cli.cli import main
from dsvl_cli.engine.options import DEFAULT_PROMPT
from dsvl_cli.engine.pictures.images import picture_from_path
from training.language import description
from training.scenes import draw_scene, sample_scene, split_random

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
TINY = ["--model", "tiny", "--dtype", "float32", "--threads", "1"]
# Of the exact descriptions in the card's table: 99.6, 94.0 and 78.4 % of one, two and three shapes.
PROMISED = {1: 0.996, 2: 0.94, 3: 0.784}


def batch(*arguments: str | Path) -> int:
    return main(["batch", *map(str, arguments), *TINY])


def rows(path: Path) -> dict[str, dict[str, object]]:
    return {Path(row["path"]).name: row for row in map(json.loads, path.read_text("utf-8").splitlines())}


def draw_scenes(folder: Path, count: int, shapes: int) -> dict[str, str]:
    """Draw scenes into a folder, in an order that their names do not tell; returns the right answers by name."""
    names = [f"{number}.png" for number in range(count)]
    random.Random(7).shuffle(names)
    answers = {}
    folder.mkdir()
    for index, name in enumerate(names):
        rng = split_random("evaluation", 17, 5_000_000 + 1_000 * shapes + index)
        scene = sample_scene(rng, shapes, number=False)
        draw_scene(scene, rng.randint(96, 400)).save(folder / name)
        answers[name] = description(scene)
    return answers


def check_scenes(folder: Path, count: int, shapes: int) -> None:
    answers = draw_scenes(folder, count, shapes)
    out = folder.with_suffix(".jsonl")
    assert batch(folder, "-o", out, "-q") == 0
    found = rows(out)
    assert set(found) == set(answers)
    right = sum(found[name]["text"] == answer for name, answer in answers.items())
    assert right >= PROMISED[shapes] * count - 1


def test_each_scene_gets_its_right_answer_under_its_own_name(tmp_path: Path) -> None:
    check_scenes(tmp_path / "scenes", 24, 1)


@pytest.mark.soak
@pytest.mark.parametrize(("shapes", "count"), [(1, 300), (2, 120), (3, 80)])
def test_500_scenes_get_the_share_of_right_answers_that_the_card_promises(
    tmp_path: Path, shapes: int, count: int
) -> None:
    check_scenes(tmp_path / "scenes", count, shapes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("red-circle.png", "green-star.webp"):
        shutil.copy(EXAMPLES / name, folder)
    (folder / "broken.png").write_bytes(b"no picture at all")
    return folder


def test_one_row_a_picture_and_1_where_some_are_errors(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert batch(folder, "-o", out) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"error: {folder}/broken.png" in captured.err
    assert "2 answered, 1 failed" in captured.err
    assert "retry with --retry-errors" in captured.err
    found = rows(out)
    assert "red circle" in str(found["red-circle.png"]["text"])
    assert "green star" in str(found["green-star.webp"]["text"])
    assert found["broken.png"]["error_type"] == "ImageError"
    assert found["broken.png"]["text"] is None
    assert {row["prompt"] for row in found.values()} == {DEFAULT_PROMPT}
    picture = picture_from_path(folder / "red-circle.png")
    assert found["red-circle.png"]["sha256"] == picture.sha256
    assert (found["red-circle.png"]["width"], found["red-circle.png"]["height"]) == (picture.width, picture.height)


def test_a_second_run_has_nothing_to_do_and_loads_no_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    (folder / "broken.png").unlink()
    assert batch(folder, "-o", out) == 0
    before = out.read_bytes()
    out.unlink()  # as if it had been killed before the table was written
    monkeypatch.setattr("dsvl_cli.engine.model.load_model", None)
    assert batch(folder, "-o", out) == 0
    assert out.read_bytes() == before
    assert "nothing to do" in capsys.readouterr().err
    with out.open(newline="", encoding="utf-8") as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)] == ["green-star.webp", "red-circle.png"]


def test_requests_of_openai_are_answered_in_its_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests, out = tmp_path / "requests.jsonl", tmp_path / "out.jsonl"
    lines = []
    for name in ("red-circle.png", "nothing.png"):
        content = [
            {"type": "text", "text": "What colour is the circle?"},
            {"type": "image_url", "image_url": {"url": str(EXAMPLES / name)}},
        ]
        body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
        lines.append({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})
    requests.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert ask(requests, "-o", out, "--format", "openai") == 1
    failed, answered = map(json.loads, out.read_text().splitlines())
    assert (answered["custom_id"], answered["error"]) == ("red-circle.png", None)
    assert answered["response"]["body"]["choices"][0]["message"]["content"] == "Red."
    assert (failed["custom_id"], failed["error"]["code"]) == ("nothing.png", "ImageError")
    capsys.readouterr()
    assert ask(requests, "-o", "-", "--format", "openai") == 1
    streamed = {line["custom_id"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert streamed["nothing.png"] == failed
    # Its lines are no rows: without the flag the file is not taken for a journal, and begins anew on demand only.
    before = out.read_bytes()
    assert ask(requests, "-o", out) == 1
    assert "format 'jsonl' (was 'openai')" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert ask(requests, "-o", out, "--overwrite") == 1
    assert len(rows(out)) == 2
    assert not list(tmp_path.glob("*.journal.jsonl"))


def test_an_output_stays_of_its_format(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    assert batch(folder, "-o", out, "-q") == 1
    before = out.read_bytes()
    for other in ("openai", "jsonl"):
        capsys.readouterr()
        assert batch(folder, "-o", out, "--format", other, "-q") == 1
        assert f"format '{other}' (was 'csv')" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main(["batch", "--check", str(out)]) == 0


def test_what_failed_is_done_again_when_asked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert batch(folder, "-o", out, "-q") == 1
    shutil.copy(EXAMPLES / "white-cross.png", folder / "broken.png")
    assert batch(folder, "-o", out, "-q") == 1
    assert batch(folder, "-o", out, "-q", "--retry-errors") == 0
    assert "white cross" in str(rows(out)["broken.png"]["text"])
    assert len(out.read_text().splitlines()) == 3


def test_other_questions_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    batch(folder, "-o", out)
    before = out.read_bytes()
    assert batch(folder, "-o", out, "-p", "Is there a circle?") == 1
    assert "prompt 'Is there a circle?' (was 'Describe this image.')" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert batch(folder, "-o", out, "-p", "Is there a circle?", "--overwrite") == 1
    assert [rows(out)[name]["text"] for name in ("red-circle.png", "green-star.webp")] == ["Yes.", "No."]


def test_several_questions_have_a_column_each(folder: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.toml"
    questions.write_text('colour = "What colour is the shape?"\ncircle = "Is there a circle?"\n')
    out = tmp_path / "out.jsonl"
    assert batch(folder, "-o", out, "--ask", questions, "-q") == 1
    found = rows(out)
    assert "red" in str(found["red-circle.png"]["colour"]).lower()
    assert (found["red-circle.png"]["circle"], found["green-star.webp"]["circle"]) == ("Yes.", "No.")
    assert found["broken.png"]["colour"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text = 'a'", "cannot be named 'text'"),
        ("a = 1", "a is not a question"),
        ("", "contains no questions"),
        ("x", "not TOML"),
    ],
)
def test_wrong_questions_are_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "q.toml").write_text(text)
    assert batch(folder, "-o", tmp_path / "out.jsonl", "--ask", tmp_path / "q.toml") == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_names_come_in_on_stdin_and_rows_go_out_on_stdout(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "".join(f"{path}\n" for path in sorted(folder.iterdir()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    assert batch("--files-from", "-", "-o", "-") == 1
    sys.stdout.seek(0)
    found = [json.loads(line) for line in sys.stdout]
    assert {Path(row["path"]).name: row["status"] for row in found} == {
        "broken.png": "error", "green-star.webp": "answered", "red-circle.png": "answered",
    }  # fmt: skip
    assert sorted(folder.parent.iterdir()) == [folder]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert batch(folder, "-o", out, "--dry-run") == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:5])
    assert (said["found"], said["question"]) == ("3", DEFAULT_PROMPT)
    assert sorted(tmp_path.iterdir()) == [folder]


def test_stale_rows_are_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    batch(folder, "-o", out)
    assert main(["batch", "--check", str(out)]) == 0
    shutil.copy(EXAMPLES / "white-cross.png", folder / "red-circle.png")
    (folder / "green-star.webp").unlink()
    capsys.readouterr()
    assert main(["batch", "--check", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{folder}/green-star.webp: the picture is gone",
        f"{folder}/red-circle.png: the picture has changed",
    ]
    assert "2 of 3 rows are stale" in captured.err
    assert main(["batch", "--check", str(out), "-p", "What else?"]) == 1
    assert capsys.readouterr().out.count("the prompt has changed") == 3


def test_too_many_errors_stop_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.png").write_bytes(b"broken")
    assert batch(folder, "-o", tmp_path / "out.jsonl", "--max-errors", "20") == 1
    assert "stopped: more than 20 failed" in capsys.readouterr().err
    assert 20 < len((tmp_path / "out.jsonl").read_text().splitlines()) < 60
    assert batch(folder, "-o", tmp_path / "out2.jsonl") == 1
    assert "100 failed in a row" in capsys.readouterr().err
    assert len((tmp_path / "out2.jsonl").read_text().splitlines()) < 140


def test_the_report_shows_every_row(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    assert batch(folder, "-o", tmp_path / "texts", "--report", report, "-q") == 1
    page = report.read_text("utf-8")
    assert all(name in page for name in ("red-circle.png", "green-star.webp", "broken.png"))
    assert page.count("data:image/webp;base64,") == 2
    assert (tmp_path / "texts/red-circle.txt").read_text() == "A red circle on a white background.\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["photos"], 2, "no output is given"),
        (["-o", "x.jsonl"], 2, "no pictures are given"),
        (["photos", "-o", "x.json"], 2, "not that of a known format"),
        (["photos", "-o", "x.jsonl", "-p", "a", "--ask", "q.toml"], 2, "cannot be used together"),
        (["photos", "-o", "x.jsonl", "--batch-size", "none"], 2, "--batch-size is 'none'"),
        (["photos", "-o", "x.jsonl", "--existing", "append"], 2, "--existing is only for text files"),
        (["photos", "-o", "x.jsonl", "--format", "openai", "--ask", "q.toml"], 2, "only one answer per picture"),
        (["photos", "-o", "-", "--report", "r.html"], 2, "--report needs saved rows"),
        (["photos", "-o", "x.jsonl", "-p", "<image> or <image>?"], 2, "more than one <image>"),
        (["nowhere", "-o", "x.jsonl"], 1, "nowhere: no such file or folder"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_done(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    assert batch(*arguments) == status
    assert said in capsys.readouterr().err
    assert not Path("x.jsonl").exists() or not Path("x.jsonl").read_bytes()


def test_a_table_of_pictures_is_a_source(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    data = [{"bytes": (EXAMPLES / name).read_bytes(), "path": name} for name in ("red-circle.png", "green-star.webp")]
    pq.write_table(pa.table({"image": data, "n": [1, 2]}), tmp_path / "table.parquet")
    assert batch(tmp_path / "table.parquet", "-o", tmp_path / "out.jsonl", "-q") == 0
    texts = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["red circle" in row["text"] for row in sorted(texts, key=lambda row: str(row["id"]))] == [True, False]
    assert main(["batch", "--check", str(tmp_path / "out.jsonl")]) == 0


def test_of_several_columns_of_pictures_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table, out, page = tmp_path / "table.parquet", tmp_path / "out.jsonl", tmp_path / "page.html"
    left, right = ([(EXAMPLES / name).read_bytes()] for name in ("red-circle.png", "green-star.webp"))
    pq.write_table(pa.table({"left": left, "right": right}), table)
    assert batch(table, "-o", out) == 1
    err = capsys.readouterr().err
    assert "2 columns could hold the pictures: left, right" in err
    assert "--column left" in err
    assert batch(table, "-o", out, "--column", "right", "--report", page, "-q") == 0
    (row,) = map(json.loads, out.read_text().splitlines())
    assert "green star" in row["text"]
    assert "data:image/webp;base64," in page.read_text()
    assert main(["batch", "--check", str(out)]) == 0
    capsys.readouterr()
    assert batch(table, "-o", out, "--column", "left", "-q") == 1
    assert "column 'left' (was 'right')" in capsys.readouterr().err


def picture_part(path: Path) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": str(path)}}


def text_part(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def ask(requests: Path, *arguments: str | Path) -> int:
    """Answer requests about the examples, which are in another folder."""
    return batch(requests, "--allow-outside-paths", *arguments)


def write_requests(path: Path, contents: Mapping[str, object]) -> Path:
    """Write a request for each content of a user's message, by its `custom_id`."""
    lines = [
        {
            "custom_id": name, "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "tiny", "messages": [{"role": "user", "content": content}]},
        }
        for name, content in contents.items()
    ]  # fmt: skip
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def rows_by_id(path: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in map(json.loads, path.read_text("utf-8").splitlines())}


def test_a_request_without_a_picture_is_answered(tmp_path: Path) -> None:
    contents = {
        "plain": "Hello",
        "seeing": [picture_part(EXAMPLES / "red-circle.png"), text_part("What colour is the circle?")],
        "empty": [],
    }
    out = tmp_path / "out.jsonl"
    assert ask(write_requests(tmp_path / "in.jsonl", contents), "-o", out, "--report", tmp_path / "r.html", "-q") == 0
    found = rows_by_id(out)
    assert {name: row["status"] for name, row in found.items()} == dict.fromkeys(contents, "answered")
    assert found["seeing"]["text"] == "Red."
    assert "hello" in str(found["plain"]["text"]).lower()
    assert (found["plain"]["prompt"], found["plain"]["width"], found["plain"]["sha256"]) == ("Hello", None, None)
    assert main(["batch", "--check", str(out)]) == 0
    assert (tmp_path / "r.html").read_text("utf-8").count('<span class="none">') == 2


def test_a_damaged_picture_ends_its_own_request_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, cut = EXAMPLES / "red-circle.png", tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    question = text_part("What colour is the circle?")
    contents = {
        "before": [picture_part(good), question],
        "first": [picture_part(cut), picture_part(good), question],
        "last": [picture_part(good), picture_part(cut), question],
        "after": [picture_part(good), question],
    }
    out = tmp_path / "out.jsonl"
    assert ask(write_requests(tmp_path / "in.jsonl", contents), "-o", out) == 1
    found = rows_by_id(out)
    assert {name: row["error_type"] for name, row in found.items()} == {
        "before": None, "first": "ImageError", "last": "ImageError", "after": None,
    }  # fmt: skip
    assert (found["before"]["text"], found["after"]["text"]) == ("Red.", "Red.")
    assert "2 answered, 2 failed" in capsys.readouterr().err


def test_a_mark_in_a_request_s_text_is_only_text(tmp_path: Path) -> None:
    red = picture_part(EXAMPLES / "red-circle.png")
    contents = {
        "plain": "Is <image> a picture?",
        "leading": [red, text_part("What colour is the circle? <image>")],
        "between": [text_part("What colour is the circle?"), red, text_part("<image>")],
    }
    out, page = tmp_path / "out.jsonl", tmp_path / "page.html"
    requests = write_requests(tmp_path / "in.jsonl", contents)
    assert ask(requests, "-o", out, "--report", page, "-q") == 0
    found = rows_by_id(out)
    assert {name: row["prompt"] for name, row in found.items()} == {
        "plain": "Is <image> a picture?",
        "leading": "What colour is the circle? <image>",
        "between": "What colour is the circle?<image><image>",
    }
    assert (found["plain"]["width"], found["leading"]["width"], found["between"]["width"]) == (None, 320, 320)
    assert "red" in str(found["between"]["text"]).lower()
    assert page.read_text("utf-8").count("Is &lt;image&gt; a picture?") == 1
    assert main(["batch", "--check", str(out)]) == 0
    assert ask(requests, "-o", out, "-q") == 0, "the same requests are done"
    assert rows_by_id(out) == found
    assert ask(requests, "-o", tmp_path / "openai.jsonl", "--format", "openai", "-q") == 0
    lines = map(json.loads, (tmp_path / "openai.jsonl").read_text("utf-8").splitlines())
    assert {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines} == {
        name: row["text"] for name, row in found.items()
    }


def test_a_mark_in_the_run_s_question_is_the_picture_s_place(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    (folder / "broken.png").unlink()
    assert batch(folder, "-o", out, "-p", "What colour is the shape? <image>", "-q") == 0
    found = rows(out)
    assert {row["prompt"] for row in found.values()} == {"What colour is the shape? <image>"}
    assert ["red" in str(found["red-circle.png"]["text"]).lower(), found["green-star.webp"]["width"]] == [True, 300]


def test_a_table_s_row_without_pictures_is_answered(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    data = [[(EXAMPLES / "red-circle.png").read_bytes()], []]
    pq.write_table(pa.table({"images": pa.array(data, pa.list_(pa.binary()))}), tmp_path / "table.parquet")
    assert batch(tmp_path / "table.parquet", "-o", tmp_path / "out.jsonl", "-p", "What is it?", "-q") == 0
    found = rows_by_id(tmp_path / "out.jsonl")
    seeing, plain = (found[f"{tmp_path}/table.parquet::{row}"] for row in range(2))
    assert "red circle" in str(seeing["text"])
    assert (plain["status"], plain["sha256"]) == ("answered", None)
    assert "circle" not in str(plain["text"])


def test_requests_ask_for_themselves(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    content = [
        {"type": "text", "text": "What colour is the circle?"},
        {"type": "image_url", "image_url": {"url": str(tmp_path / "red.png")}},
    ]
    request = {
        "custom_id": "first", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 20},
    }  # fmt: skip
    (tmp_path / "in.jsonl").write_text(json.dumps(request) + "\n")
    assert batch(tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "-q") == 0
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (row["id"], row["prompt"]) == ("first", "What colour is the circle?<image>")
    assert "red" in row["text"].lower()

"""Folders as people have them: stale pictures, texts for training, ImageFolders; and nothing that is left behind."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from dsvl_cli.batch.output import sidecars
from tests.app.batch.fake_run import Batch, fake_batch
from tests.batch.fakes import FakeBatchModel, png


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> tuple[Batch, FakeBatchModel]:
    return fake_batch(monkeypatch)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    sidecars._real.cache_clear()  # of another test's current folder
    for number, name in enumerate(("a.png", "sub/b.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path


def files(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}


def rows(path: Path) -> dict[str, dict[str, object]]:
    return {row["path"]: row for row in map(json.loads, path.read_text("utf-8").splitlines())}


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "texts"])
@pytest.mark.parametrize(
    "sources", ["nowhere", "photos nowhere", "photos/*.gif", "--files-from nowhere", "-", "nowhere.tar"]
)
def test_a_missing_source_leaves_nothing(
    place: Path, run: tuple[Batch, FakeBatchModel], sources: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(place)
    assert run[0](*sources.split(), "-o", f"deep/{out}") in (1, 2)
    assert files(place) == before
    assert "bug" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["--choices", "Red,Green"], ["--choices", "Red,Blue"]),
        (["--choices", "Red,Green"], ["--yes-no"]),
        (["--schema", "colour"], ["--schema", "colour, count int"]),
        (["--ask", "q.toml"], ["--ask", "changed.toml"]),
        ([], ["--yes-no"]),
    ],
)
def test_a_check_names_another_form_of_the_answers(
    place: Path,
    run: tuple[Batch, FakeBatchModel],
    before: list[str],
    after: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place / "q.toml").write_text('[colour]\nprompt = "Which?"\nchoices = ["Red", "Green"]\n')
    (place / "changed.toml").write_text('[colour]\nprompt = "Which?"\ntype = "list"\n')
    run[0]("photos", "-o", "out.jsonl", *before)
    capsys.readouterr()
    assert run[0]("--check", "out.jsonl", *before) == 0
    assert run[0]("--check", "out.jsonl", *after) == 1
    assert capsys.readouterr().out == "photos/a.png: the form of the answers has changed\n"


def test_a_check_names_another_number_of_samples(
    place: Path, run: tuple[Batch, FakeBatchModel], capsys: pytest.CaptureFixture[str]
) -> None:
    run[0]("photos", "-o", "out.jsonl", "--samples", "2")
    capsys.readouterr()
    assert run[0]("--check", "out.jsonl") == run[0]("--check", "out.jsonl", "--samples", "2") == 0
    assert run[0]("--check", "out.jsonl", "--samples", "3") == 1
    assert capsys.readouterr().out == "photos/a.png: the number of samples has changed\n"


def test_an_address_that_leads_nowhere_is_an_error_row(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    assert run[0]("photos", "http://", "-o", "out.jsonl") == 1
    written = rows(place / "out.jsonl").values()
    assert sorted(str(row["status"]) for row in written) == ["answered", "error"]
    (error,) = (row["error"] for row in written if row["status"] == "error")
    assert "not an http(s) URL" in str(error)


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "texts"])
def test_a_run_that_fails_before_its_first_row_leaves_nothing(
    place: Path, run: tuple[Batch, FakeBatchModel], out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsvl_cli.errors import DsvlError

    def fail(*_: object) -> None:
        raise DsvlError("not enough memory")

    before = files(place)
    monkeypatch.setattr(sys.modules["dsvl_cli.engine.model"], "load_model", fail)
    assert run[0]("photos", "-r", "-o", out) == 1
    assert files(place) == before


@pytest.mark.parametrize(
    ("out", "left"),
    [
        ("out.jsonl", {"out.jsonl", "out.jsonl.settings.json"}),
        ("out.csv", {"out.csv", "out.csv.settings.json", "out.csv.journal.jsonl"}),
        ("texts", {"texts/a.txt", "texts/sub/b.txt", "texts.settings.json", "texts.journal.jsonl"}),
    ],
)
def test_what_a_run_leaves_is_what_the_page_says(
    place: Path, run: tuple[Batch, FakeBatchModel], out: str, left: set[str]
) -> None:
    before = files(place)
    assert run[0]("photos", "-r", "-o", out) == 0
    assert files(place) - before == left  # no lock, no trials
    page = (Path(__file__).parents[3] / "docs/folders.md").read_text("utf-8")
    assert all(suffix in page for suffix in ("OUT.settings.json", "OUT.journal.jsonl", ".OUT.dsvl-lock"))


def test_the_end_line_names_what_was_written(
    place: Path, run: tuple[Batch, FakeBatchModel], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run[0]("photos", "-r", "-o", "out.csv", "--report", "page.html") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "rows in out.csv, report in page.html"
    assert run[0]("photos", "-r", "-o", "out.csv") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "rows in out.csv"


def test_notes_about_pictures_are_said_once_for_all(
    place: Path, run: tuple[Batch, FakeBatchModel], capsys: pytest.CaptureFixture[str]
) -> None:
    for number, white in enumerate((4080, 4000, 1000)):
        Image.new("I;16", (4, 4), white).save(place / f"photos/scan{number}.png")
    assert run[0]("photos", "-o", "out.jsonl") == 0
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if "bits of grey" in line]
    assert line.startswith("photos/scan")
    assert line.endswith("; and 2 more like it")


def test_ids_like_formulas_are_said(
    place: Path, run: tuple[Batch, FakeBatchModel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "photos/=1+1.png").write_bytes(png(4))
    monkeypatch.chdir("photos")
    assert run[0](".", "-o", "../out.csv") == 0
    assert "1 of the ids looks like a formula to a spreadsheet" in capsys.readouterr().err
    with (place / "out.csv").open(newline="") as file:
        found = {row["id"]: row["path"] for row in csv.DictReader(file)}
    assert found == {"=1+1.png": "'=1+1.png", "a.png": "a.png"}


def test_an_empty_folder_with_subfolders_names_the_way(
    place: Path, run: tuple[Batch, FakeBatchModel], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "photos/a.png").unlink()
    assert run[0]("photos", "-o", "out.jsonl") == 0
    assert "no pictures were found; -r searches subfolders too" in capsys.readouterr().err


def test_what_was_skipped_is_said(
    place: Path, run: tuple[Batch, FakeBatchModel], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "photos/@eaDir/a.png").mkdir(parents=True)
    (place / "photos/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg").write_bytes(png(9))
    (place / "photos/._a.png").write_bytes(b"\0\5\x16\7")
    left_out = ("--exclude", "b.*", "--exclude", "sub/b.png", "--exclude", "photos/sub", "--exclude", "")
    assert run[0]("photos", "-r", "-o", "out.jsonl", *left_out) == 0
    error = capsys.readouterr().err
    assert "--exclude photos/sub matched nothing: it is compared with paths below the given folder" in error
    assert "--exclude '' matched nothing" in error
    assert error.count("matched nothing") == 2
    assert "2 thumbnails and system files skipped" in error
    assert "--all takes them" in error
    assert "1 excluded by --exclude" in error
    assert set(rows(place / "out.jsonl")) == {"photos/a.png"}
    assert run[0]("photos", "-r", "-o", "out.jsonl", "--all") == 1  # an AppleDouble file is no picture
    assert len(rows(place / "out.jsonl")) == 4


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "photos"])
def test_stale_rows_are_done_again_and_no_others(
    place: Path, run: tuple[Batch, FakeBatchModel], out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    batch, model = run
    (place / "photos/gone.png").write_bytes(png(7))
    assert batch("photos", "-r", "-o", out) == 0
    (place / "photos/a.png").write_bytes(png(100))
    (place / "photos/gone.png").unlink()
    assert batch("--check", out) == 1
    assert "photos/a.png: the picture has changed" in capsys.readouterr().out
    assert batch("photos", "-r", "-o", out, "--retry-stale", "--dry-run") == 0
    assert "to do            1" in capsys.readouterr().out
    assert batch("photos", "-r", "-o", out, "--retry-stale") == 0
    assert "1 row is left as it is: its picture is gone" in capsys.readouterr().err
    assert len(model.asked) == 1
    assert batch("--check", out) == 1
    assert capsys.readouterr().out == "photos/gone.png: the picture is gone\n"
    if out == "photos":
        from hashlib import sha256

        assert sha256(png(100)).hexdigest()[:8] in (place / "photos/a.txt").read_text()


def test_a_stale_picture_that_broke_becomes_an_error(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    run[1].answer = lambda _: "red red red red red red red red red red red red"  # suspect
    assert run[0]("photos", "-r", "-o", "out.jsonl") == 0
    assert rows(place / "out.jsonl")["photos/a.png"]["status"] == "suspect"
    (place / "photos/a.png").write_bytes(b"broken")
    assert run[0]("photos", "-r", "-o", "out.jsonl", "--retry-stale") == 1
    assert rows(place / "out.jsonl")["photos/a.png"]["status"] == "error"


def test_texts_for_training_have_an_extension_a_prefix_and_a_suffix(
    place: Path, run: tuple[Batch, FakeBatchModel]
) -> None:
    batch, model = run
    model.answer = lambda _: "a red square"
    texts = ("-o", "photos", "--sidecar", ".caption", "--prefix", "sks style", "--suffix", "photo")
    assert batch("photos", "-r", *texts) == 0
    assert (place / "photos/a.caption").read_text() == "sks style, a red square, photo\n"
    assert (place / "photos/sub/b.caption").exists()
    assert not list((place / "photos").rglob("*.txt"))
    assert batch("photos", "-r", *texts) == 0
    assert model.asked == []
    for changed in (("--sidecar", "txt"), ("--prefix", "other"), ("--suffix", ""), ("--separator", " ")):
        assert batch("photos", "-r", *texts, *changed) == 1  # such rows are not mixed
    assert batch("photos", "-r", *texts, "--separator", " ", "--overwrite") == 0
    assert (place / "photos/a.caption").read_text() == "sks style a red square photo\n"


def test_what_is_added_to_a_text_is_found_again(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    batch, model = run
    (place / "photos/a.txt").write_text("mine\n")
    texts = ("-o", "photos", "--existing", "append", "--prefix", "sks")
    model.answer = lambda _: ""
    assert batch("photos/a.png", *texts) == 0
    assert (place / "photos/a.txt").read_text() == "mine\nsks\n"
    model.answer = lambda _: "a dog"
    assert batch("photos/a.png", *texts, "--retry-suspect") == 0
    assert (place / "photos/a.txt").read_text() == "mine\nsks, a dog\n"


@pytest.mark.parametrize("extension", ["", ".", ".png", "a/b", "../x", ".tar", ".jsonl", ". x", ".x" * 5])
def test_an_extension_of_texts_is_one(place: Path, run: tuple[Batch, FakeBatchModel], extension: str) -> None:
    before = files(place)
    assert run[0]("photos", "-o", "photos", "--sidecar", extension) == 2
    assert files(place) == before


@pytest.mark.parametrize(
    "arguments",
    [
        "-o out.jsonl --prefix x",
        "-o out.csv --suffix x",
        "-o out.csv --sidecar .caption",
        "-o out.jsonl --bom",
        "-o photos --bom",
        "-o out.jsonl --format imagefolder",
        "-o - --format imagefolder",
        "-o out.jsonl -p {nmae}",
        "-o out.jsonl -p {caption}{Folder}",
    ],
)
def test_options_that_do_not_match_are_refused_before_anything_is_done(
    place: Path, run: tuple[Batch, FakeBatchModel], arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(place)
    monkeypatch.setattr(sys.modules["dsvl_cli.engine.model"], "load_model", None)
    assert run[0]("photos", *arguments.split()) == 2
    assert files(place) == before


def test_each_picture_is_asked_about_by_its_name(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    batch, model = run
    question = ("-p", "Is {name} in {folder}? {{name}}")
    assert batch("photos", "-r", "-o", "out.jsonl", *question) == 0
    asked = {path: row["prompt"] for path, row in rows(place / "out.jsonl").items()}
    assert asked == {"photos/a.png": "Is a in photos? {name}", "photos/sub/b.png": "Is b in sub? {name}"}
    assert batch("photos", "-r", "-o", "out.jsonl", *question) == 0  # goes on
    assert model.asked == []
    assert batch("--check", "out.jsonl", *question) == 0
    assert batch("photos", "-r", "-o", "out.jsonl", "-p", "Is {name} in it?") == 1


def test_a_picture_without_a_caption_is_an_error_of_its_own(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    batch, _ = run
    (place / "photos/a.txt").write_bytes(b"\xff\xfe" + "ein Kreis".encode("utf-16-le"))
    assert batch("photos", "-r", "-o", "out.jsonl", "-p", "Improve: {caption}") == 1
    found = rows(place / "out.jsonl")
    assert found["photos/a.png"]["prompt"] == "Improve: ein Kreis"
    assert "has no {caption}" in str(found["photos/sub/b.png"]["error"])
    assert batch("--check", "out.jsonl") == 0  # its picture has not changed
    (place / "photos/sub/b.txt").write_text("a circle")
    assert batch("photos", "-r", "-o", "out.jsonl", "-p", "Improve: {caption}", "--retry-errors") == 0
    assert rows(place / "out.jsonl")["photos/sub/b.png"]["prompt"] == "Improve: a circle"


def test_a_caption_is_the_one_before_the_first_answer(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    batch, model = run
    (place / "photos/a.txt").write_text("mine")
    model.answer = lambda _: ""  # suspect
    texts = ("photos/a.png", "-o", "photos", "--existing", "overwrite", "-p", "Improve: {caption}")
    assert batch(*texts) == 0
    model.answer = lambda request: str(request.conversation.messages[0].text).upper()
    assert batch(*texts, "--retry-suspect") == 0
    assert [request.conversation.messages[0].text for request in model.asked] == ["Improve: mine"]


@pytest.mark.parametrize("out", ["photos", "photos/metadata.jsonl"])
def test_an_imagefolder_names_its_pictures_from_the_folder(
    place: Path, run: tuple[Batch, FakeBatchModel], out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, model = run
    model.answer = lambda _: "a square"
    (place / "photos/broken.png").write_bytes(b"x")
    assert batch("photos", "-r", "-o", out, "--format", "imagefolder", "--prefix", "sks") == 1
    lines = [json.loads(line) for line in (place / "photos/metadata.jsonl").read_text().splitlines()]
    assert lines == [
        {"file_name": "a.png", "text": "sks, a square"},
        {"file_name": "sub/b.png", "text": "sks, a square"},
    ]
    monkeypatch.chdir("photos")
    (place / "photos/sub/ü c.png").write_bytes(png(5))
    assert batch(".", "-r", "-o", "metadata.jsonl", "--format", "imagefolder", "--prefix", "sks") == 1
    assert len(model.asked) == 1  # whatever the folder in which it is started
    names = [json.loads(line)["file_name"] for line in (place / "photos/metadata.jsonl").read_text().splitlines()]
    assert names == ["a.png", "sub/b.png", "sub/ü c.png"]


def test_an_imagefolder_has_no_pictures_from_elsewhere(
    place: Path, run: tuple[Batch, FakeBatchModel], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "other.png").write_bytes(png(3))
    assert run[0]("other.png", "-o", "photos", "--format", "imagefolder") == 1
    assert "other.png is not a file in" in capsys.readouterr().err
    assert not (place / "photos/metadata.jsonl").exists()

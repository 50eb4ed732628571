"""No file that is written is one that is read, or another that is written; and nothing is dropped too early."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.app.batch.fake_run import Batch, fake_batch
from tests.batch.fakes import FakeBatchModel, png

FILES = ("u.jsonl", "t.parquet", "list.txt", "prompt.txt", "ask.toml", "photos/a.png", "photos/b.png", "old.csv")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> tuple[Batch, FakeBatchModel]:
    return fake_batch(monkeypatch)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of each that a batch may read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number, name in enumerate("ab"):
        (tmp_path / f"photos/{name}.png").write_bytes(png(number))
    content = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "photos/a.png"}}]
    line = {"custom_id": "1", "body": {"messages": [{"role": "user", "content": content}]}}
    (tmp_path / "u.jsonl").write_text(json.dumps(line) + "\n")
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "t.parquet")
    (tmp_path / "list.txt").write_text("photos/a.png\nphotos/b.png\n")
    (tmp_path / "prompt.txt").write_text("What is it?")
    (tmp_path / "ask.toml").write_text('colour = "Which colour?"')
    (tmp_path / "old.csv").write_text("mine\n")
    os.link(tmp_path / "u.jsonl", tmp_path / "hard.jsonl")
    (tmp_path / "soft.jsonl").symlink_to("u.jsonl")
    (tmp_path / "linked").symlink_to("photos")
    return tmp_path


def contents(place: Path) -> dict[str, bytes]:
    return {name: (place / name).read_bytes() for name in FILES}


@pytest.mark.fault("outputs that are read or written twice")
@pytest.mark.parametrize(
    "arguments",
    [
        "u.jsonl -o u.jsonl --overwrite",
        "u.jsonl -o ./photos/../u.jsonl --overwrite",
        "u.jsonl -o hard.jsonl --overwrite",
        "soft.jsonl -o u.jsonl --overwrite",
        "u.jsonl -o soft.jsonl --overwrite",
        "u.jsonl -o u.jsonl --overwrite --dry-run",
        "t.parquet -o t.parquet --overwrite",
        "--files-from list.txt -o list.txt --format jsonl --overwrite",
        "--files-from list.txt -o photos/a.png --format jsonl --overwrite",
        "--files-from list.txt -o linked/a.png --format csv --overwrite",
        "photos -o photos/a.png --format jsonl --overwrite",
        "photos/a.png -o photos/a.png --format csv --overwrite",
        "photos -o prompt.txt --format jsonl --overwrite --prompt-file prompt.txt",
        "photos -o ask.toml --format jsonl --overwrite --ask ask.toml",
        "photos -o out.jsonl --report out.jsonl",
        "photos -o out.csv --report out.csv.journal.jsonl",
        "photos -o out.csv --report out.csv.settings.json",
        "photos -o out.jsonl --report photos/a.png",
        "photos -o out.jsonl --report old.csv",
        "photos -o out.jsonl --report u.jsonl",
        "photos -o out.jsonl --report photos",
        "photos -o out.jsonl --report prompt.txt --prompt-file prompt.txt",
        "u.jsonl -o u --format jsonl --report u.jsonl",
    ],
)
def test_nothing_is_touched(
    place: Path, run: tuple[Batch, FakeBatchModel], arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(place)
    batch, model = run
    assert batch(*arguments.split()) in (1, 2)
    assert contents(place) == before
    assert not list(place.glob("out*"))
    assert model.asked == []
    assert "bug" not in capsys.readouterr().err


@pytest.mark.fault("outputs that are read or written twice")
def test_a_file_of_the_model_is_no_output(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    import shutil

    from dsvl_cli.engine.checkpoint.find import find_checkpoint
    from dsvl_cli.engine.options import LoadOptions
    from dsvl_cli.engine.progress import Silence

    shutil.copytree(find_checkpoint(LoadOptions(model="tiny"), Silence()).path, place / "model")
    from dsvl_cli.cli import main

    before = (place / "model/config.json").read_bytes()
    out = ["-o", "model/config.json", "--format", "jsonl", "--overwrite"]
    assert main(["batch", "photos", *out, "--model", "model"]) == 2
    assert (place / "model/config.json").read_bytes() == before


def test_a_listed_text_is_no_output(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    (place / "list.txt").write_text("photos/a.png\nold.csv\n")
    assert run[0]("--files-from", "list.txt", "-o", "old.csv", "--overwrite") == 2
    assert (place / "old.csv").read_text() == "mine\n"


def test_a_report_is_no_other_output(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    for report in ("out.csv", "out.csv.journal.jsonl", "out.csv.settings.json", "photos/../out.csv"):
        assert run[0]("photos", "-o", "out.csv", "--report", report) == 2
    assert run[1].asked == []
    assert run[0]("photos", "-o", "out.csv", "--report", "out.html") == 0
    assert run[0]("photos", "-o", "out.csv", "--report", "out.html", "--overwrite") == 0


def test_texts_replace_neither_prompt_nor_picture(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    (place / "photos/a.txt").write_text("What is it?")
    (place / "photos/b.txt").write_bytes(png(7))
    texts = ["-o", "photos", "--existing", "overwrite", "--prompt-file", "photos/a.txt"]
    assert run[0]("photos", *texts, "--ext", "png,txt") == 1  # a.txt is no picture
    assert (place / "photos/a.txt").read_text() == "What is it?"
    assert (place / "photos/b.txt").read_bytes() == png(7)
    assert {path.name for path in (place / "photos").glob("*.png.txt")} == {"a.png.txt", "b.png.txt"}


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "texts"])
def test_starting_over_for_nothing_keeps_the_old_rows(place: Path, run: tuple[Batch, FakeBatchModel], out: str) -> None:
    batch, _ = run
    (place / "empty").mkdir()
    assert batch("photos", "-o", out) == 0
    before = {path: path.read_bytes() for path in place.glob("*out*") if path.is_file()}
    assert batch("empty", "-o", out, "--overwrite", "-p", "Who?") == 0
    assert batch("nowhere", "-o", out, "--overwrite", "-p", "Who?") == 1
    assert {path: path.read_bytes() for path in before} == before
    assert batch("photos", "-o", out) == 0
    assert run[1].asked == []
    assert batch("photos", "-o", out, "--overwrite", "-p", "Who?") == 0
    assert len(run[1].asked) == 2
    assert not list(place.glob(".*dsvl-old*"))


def test_a_run_killed_while_starting_over_has_lost_nothing(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    batch, model = run
    assert batch("photos", "-o", "out.jsonl") == 0
    before = (place / "out.jsonl").read_bytes()

    def end(_: object) -> None:
        raise KeyboardInterrupt

    model.before_batch = end
    assert batch("photos", "-o", "out.jsonl", "--overwrite", "-p", "Who?") == 130
    assert (place / "out.jsonl").read_bytes() == before
    # As if it had been killed after it had set the old rows aside.
    from dsvl_cli.batch.output.aside import Aside

    files = (place / "out.jsonl", place / "out.jsonl.settings.json")
    Aside(place / "out.jsonl", files).put()
    assert not files[0].exists()
    model.before_batch = lambda _: None
    assert batch("photos", "-o", "out.jsonl") == 0
    assert model.asked == []
    assert files[0].read_bytes() == before


def test_an_output_within_its_source_is_no_source(place: Path, run: tuple[Batch, FakeBatchModel]) -> None:
    batch, model = run
    (place / "shards").mkdir()
    (place / "t.parquet").rename(place / "shards/t.parquet")
    for out in ("shards/out.parquet", "shards/out.parquet", "shards/second.parquet"):
        assert batch("shards", "-o", out) == 0
        assert [row["path"] for row in pq.read_table(out).to_pylist()] == ["shards/t.parquet::0"]
    assert batch("shards/*.parquet", "-o", "shards/third.parquet") == 0
    assert [row["path"] for row in pq.read_table("shards/third.parquet").to_pylist()] == ["shards/t.parquet::0"]
    for _ in range(2):
        assert batch("photos", "-o", "photos/rows.png", "--format", "jsonl") == 0
        rows = [json.loads(line) for line in (place / "photos/rows.png").read_text().splitlines()]
        assert sorted(row["id"] for row in rows) == ["photos/a.png", "photos/b.png"]
    for link in ("hard.jsonl", "soft.jsonl"):
        (place / link).unlink()
    assert batch("*.jsonl", "-o", "all.jsonl") == 0
    assert batch("*.jsonl", "-o", "all.jsonl") == 0
    assert model.asked == []


def test_a_listed_output_is_an_error_of_its_own(
    place: Path, run: tuple[Batch, FakeBatchModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys
    import types

    names = io.BytesIO(b"photos/a.png\nout.jsonl\n")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=names, isatty=lambda: False))
    assert run[0]("--files-from", "-", "-o", "out.jsonl") == 1
    found = {row["id"]: row["error"] for row in map(json.loads, (place / "out.jsonl").read_text().splitlines())}
    assert found["photos/a.png"] is None
    assert "written by this run" in found["out.jsonl"]


def test_a_picture_is_done_once_however_it_is_spelled(
    place: Path, run: tuple[Batch, FakeBatchModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, model = run
    (place / "elsewhere").mkdir()
    spellings = ("photos", "./photos/", place / "photos", "linked", "elsewhere/../photos", "photos/*.png")
    assert batch(*spellings, "-o", "out.jsonl") == 0
    assert len(model.asked) == 2
    for spelling in spellings:
        assert batch(spelling, "-o", "out.jsonl") == 0
        assert model.asked == [], spelling
    monkeypatch.chdir(place / "elsewhere")
    for out in ("../out.jsonl", place / "out.jsonl"):
        for spelling in ("../photos", place / "photos", "../linked"):
            assert batch(spelling, "-o", out) == 0
            assert model.asked == [], spelling
    assert len((place / "out.jsonl").read_text().splitlines()) == 2


def test_two_pictures_are_two_however_alike_they_are_spelled(
    place: Path, run: tuple[Batch, FakeBatchModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, model = run
    assert batch("photos", "-o", "out.jsonl") == 0
    (place / "other/photos").mkdir(parents=True)
    (place / "other/photos/a.png").write_bytes(png(5))
    monkeypatch.chdir(place / "other")
    assert batch("photos", "-o", "../out.jsonl") == 0
    assert len(model.asked) == 1
    monkeypatch.chdir(place)
    rows = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {"photos/a.png", "photos/b.png", "other/photos/a.png"}
    assert batch("photos", "other/photos", "-o", "out.jsonl") == 0
    assert model.asked == []


def test_an_output_may_move_with_or_without_its_pictures(
    place: Path, run: tuple[Batch, FakeBatchModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, model = run
    assert batch("photos", "-o", "out.jsonl") == 0
    (place / "new").mkdir()
    (place / "out.jsonl").rename(place / "new/out.jsonl")
    (place / "out.jsonl.settings.json").rename(place / "new/out.jsonl.settings.json")
    assert batch("photos", "-o", "new/out.jsonl") == 0
    assert model.asked == []
    (place / "photos").rename(place / "new/photos")
    monkeypatch.chdir(place / "new")
    assert batch("photos", "-o", "out.jsonl") == 0
    assert model.asked == []


@pytest.mark.fault("planted links and files")
@pytest.mark.parametrize("name", ["out.csv.journal.jsonl", ".out.csv.dsvl-lock", ".out.csv.dsvl-trials"])
@pytest.mark.parametrize("exists", [True, False])
def test_no_planted_link_is_written_through(
    place: Path, run: tuple[Batch, FakeBatchModel], name: str, exists: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = place / "victim"
    if exists:
        victim.write_text("precious")
    (place / name).symlink_to(victim)
    status = run[0]("photos", "-o", "out.csv")
    assert victim.exists() == exists
    assert not exists or victim.read_text() == "precious"
    assert status == 1
    err = capsys.readouterr().err
    assert "is a link" in err or (exists and "is not from `dsvl batch`" in err)


@pytest.mark.fault("planted links and files")
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_an_output_that_is_a_link_leads_only_to_an_output(
    place: Path, run: tuple[Batch, FakeBatchModel], name: str
) -> None:
    batch, _ = run
    (place / name).symlink_to("victim")
    (place / "victim").write_text("precious")
    assert batch("photos", "-o", name) == 1
    assert batch("photos", "-o", name, "--overwrite") == 1
    assert (place / "victim").read_text() == "precious"
    assert not list(place.glob(".*"))  # a refused run leaves nothing behind
    (place / "victim").unlink()
    assert batch("photos", "-o", name) == 1
    assert not (place / "victim").exists()
    (place / name).unlink()
    assert batch("photos", "-o", f"real-{name}") == 0
    (place / name).symlink_to(f"real-{name}")
    assert batch("photos", "-o", name) == 0


@pytest.mark.fault("planted links and files")
@pytest.mark.parametrize("name", ["out.csv.journal.jsonl", "out.csv.settings.json", ".out.csv.dsvl-trials"])
def test_a_planted_pipe_is_not_waited_for(place: Path, run: tuple[Batch, FakeBatchModel], name: str) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    os.mkfifo(place / name)
    assert run[0]("photos", "-o", "out.csv") == 1

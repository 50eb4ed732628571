"""What does not work with an engine is refused in one line, before anything starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dsvl_cli.cli import main
from tests.batch.fakes import png


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(png(1))
    return tmp_path


def run(arguments: str) -> int:
    return main(["batch", *arguments.split(), "--model", "tiny"])


REFUSED = [
    ("photos --engine ray", "no output is given"),
    ("photos --engine ray -o -", "not to stdout"),
    ("photos --engine ray -o out.jsonl", "named like a file"),
    ("photos --engine ray -o out.parquet", "named like a file"),
    ("photos --engine ray -o out --format csv", "--format csv cannot"),
    ("photos --engine ray -o out --format openai", "--format openai cannot"),
    ("photos --engine ray -o out --existing skip", "--existing cannot"),
    ("photos --engine ray -o out --prefix x", "--prefix cannot"),
    ("photos --engine ray -o out --suffix x", "--suffix cannot"),
    ("photos --engine ray -o out --separator x", "--separator cannot"),
    ("photos --engine ray -o out --bom", "--bom cannot"),
    ("photos --engine ray -o out --overwrite", "--overwrite cannot"),
    ("photos --engine ray -o out --retry-errors", "--retry-errors cannot"),
    ("photos --engine ray -o out --retry-suspect", "--retry-suspect cannot"),
    ("photos --engine ray -o out --retry-stale", "--retry-stale cannot"),
    ("photos --engine ray -o out --dry-run", "--dry-run cannot"),
    ("photos --engine ray --check out", "--check cannot"),
    ("photos --engine ray -o out --workers many", "--workers is 'many'"),
    ("photos requests.jsonl --engine ray -o out", "has requests"),
    ("s3://bucket/photos --engine ray -o out --offline", "--offline forbids"),
    ("photos --engine ray -o s3://bucket/out --offline", "--offline forbids"),
    ("photos -o out.jsonl --workers 2", "--workers is for a cluster"),
    ("photos -o out.jsonl --ray-address auto", "--ray-address is for a cluster"),
    ("photos -o out.jsonl --gpus-per-worker 1", "--gpus-per-worker is for a cluster"),
    ("photos -o out.jsonl --rows-per-shard 10", "--rows-per-shard is for a cluster"),
    ("photos -o out.jsonl --max-failed-shards 1", "--max-failed-shards is for a cluster"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_an_option_that_cannot_work_is_refused(
    arguments: str, words: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert sorted(path.name for path in photos.iterdir()) == ["photos"]
    assert "ray" not in sys.modules


def test_without_ray_one_line_says_what_to_install(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsvl_cli.batch.cluster.start.find_spec", lambda name: None)
    assert run("photos --engine ray -o out") == 1
    err = capsys.readouterr().err
    assert "needs Ray, which is not installed" in err
    assert "pip install 'dsvl[ray]'" in err
    assert sorted(path.name for path in photos.iterdir()) == ["photos"]


def test_the_local_engine_names_the_one_that_reads_object_stores(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("s3://bucket/photos -o out.jsonl") == 1
    assert "--engine ray reads object stores" in capsys.readouterr().err

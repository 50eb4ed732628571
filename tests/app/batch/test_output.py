"""What OUT is: by its name, by what stands there, or by --format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.app.batch.output import find_format, open_output
from dsvl_cli.batch.output.output import StreamOutput
from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.errors import UsageError
from tests.app.batch.jobs import options

SETTINGS = Settings("tiny", "0", {"text": "What?"}, None, {}, {})


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.d").mkdir()


@pytest.mark.parametrize(
    ("out", "values", "form"),
    [
        ("a.jsonl", {}, "jsonl"),
        ("a.NDJSON", {}, "jsonl"),
        ("a.csv", {}, "csv"),
        ("a.parquet", {}, "parquet"),
        ("a", {}, "txt"),
        ("folder.d", {}, "txt"),
        ("a.csv", {"format": "jsonl"}, "jsonl"),
        ("a.x", {"format": "openai"}, "openai"),
        ("-", {}, None),
        ("-", {"format": "openai"}, None),
    ],
)
def test_a_format_is_told_by_the_name_or_said(out: str, values: dict[str, Any], form: str | None) -> None:
    assert find_format(options(out=out, **values)) == form


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"out": None}, "no output is given"),
        ({"out": "a.x"}, "'.x' is not that of a known format"),
        ({"out": "-", "format": "csv"}, "csv cannot be streamed"),
        ({"out": "folder.d", "format": "csv"}, "folder.d is a folder, but csv needs a file"),
        ({"out": "a.csv", "existing": "skip"}, "--existing is only for text files"),
        ({"out": "-", "report": Path("r.html")}, "--report needs saved rows"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_output(options(**values), SETTINGS)
    assert [path.name for path in Path().iterdir()] == ["folder.d"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_with_a_name_is_a_stream() -> None:
    os.mkfifo("pipe.csv")
    assert find_format(options(out="pipe.csv")) is None


def test_stdout_is_a_stream() -> None:
    output = open_output(options(out="-"), SETTINGS)
    assert isinstance(output, StreamOutput)

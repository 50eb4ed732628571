"""One benchmark from end to end, with the embedded model and few tokens."""

import json
from pathlib import Path

import pytest

from benchmarks import decode
from benchmarks.limits import Limits, Shape
from benchmarks.setup import Setup


def test_decode_measures_dsvl_and_transformers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = Limits(1e10, {"fp32": 1e11, "bf16": 1e11, "int8": 1e11})
    monkeypatch.setattr(Setup, "measure_limits", lambda self: (limits, Shape.read("tiny"), "made up"))
    results = tmp_path / "RESULTS.md"
    options = ("--formats", "fp32", "--transformers", "fp32", "--rounds", "1", "--new-tokens", "3", "--threads", "1")
    monkeypatch.setattr("sys.argv", ["decode", "tiny", *options, "--results", str(results)])
    monkeypatch.delenv("DSVL_LLAMA_PYTHON", raising=False)
    decode.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    runs = found["raw"]["runs"]
    assert set(runs) == {"dsvl fp32", "transformers fp32"}
    # Both read the same prompt and answer as long.
    assert runs["dsvl fp32"][0]["prompt_tokens"] == runs["transformers fp32"][0]["prompt_tokens"] > 64
    assert runs["dsvl fp32"][0]["new_tokens"] == 3
    assert 0 < runs["dsvl fp32"][0]["first_seconds"] < runs["dsvl fp32"][0]["seconds"]
    assert "decode step, fp32" in results.read_text()

"""The benchmark of kernels from end to end, with small weights."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import kernels
from benchmarks.kernel_candidates import Candidate
from benchmarks.limits import Limits

LIMITS = Limits(1e10, {"fp32": 1e11, "bf16": 1e11, "int8": 1e11})


def test_every_format_is_measured_beside_a_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "measure_limits", lambda threads: LIMITS)
    monkeypatch.setattr(kernels, "LAYER_SHAPES", ((128, 64),))
    monkeypatch.setattr(kernels, "HEAD_SHAPE", (256, 64))
    monkeypatch.setattr(kernels, "ROWS", (1, 41))
    monkeypatch.setattr(kernels, "COPIED_BYTES", 2**15)
    monkeypatch.setattr(kernels, "LENGTHS", (20,))
    # Importing torchao takes seconds, and says things on stderr.
    monkeypatch.setattr("benchmarks.kernel_candidates.find_spec", lambda name: None)
    results, threads = tmp_path / "RESULTS.md", torch.get_num_threads()
    monkeypatch.setattr("sys.argv", ["kernels", "--threads", str(threads), "--rounds", "2", "--results", str(results)])
    kernels.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["raw"]["measured"]
    cells = {(one["what"], one["rows"]) for one in found}
    formats = ("bf16", "fp16", "int8", "int4")
    products = {(f"{name}, 128 x 64", rows) for name in formats for rows in (1, 41)}
    assert cells == products | {(f"{name}, 256 x 64", 1) for name in formats} | {("attention, bf16", 20)}
    for cell in cells:
        ways = {one["way"]: one for one in found if (one["what"], one["rows"]) == cell}
        ours = ways["dsvl with DSVL_NATIVE=0"]
        assert ours["error"] < kernels.RIGHT
        assert ours["library"] == ways[ours["library_way"]]["milliseconds"] > 0
    text = results.read_text()
    assert "oneDNN qlinear, prepacked" in text
    assert "| of the limit |" in text


def test_a_library_that_is_wrong_or_fails_is_not_what_ours_is_compared_with() -> None:
    def fail() -> torch.Tensor:
        raise RuntimeError("not here\nat all")

    one = torch.ones(1)
    candidates = [
        Candidate("ours", False, [lambda: one], one),
        Candidate("wrong", True, [lambda: one * 2], one),
        Candidate("right", True, [lambda: one.clone()], one),
        Candidate("failing", True, [fail], one),
    ]
    notes: list[str] = []
    found = kernels.measure_ways("a", 1, candidates, lambda _, y: kernels.relative_error(y, one), 1.0, 2, notes)
    assert [measured.way for measured in found] == ["ours", "wrong", "right"]
    assert {measured.library_way for measured in found} == {"right"}
    assert notes == ["failing, a, 1 rows: RuntimeError: not here"]
    assert "wrong (wrong)" in found[1].cells()


def test_what_is_not_finite_is_wrong() -> None:
    assert kernels.relative_error(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")

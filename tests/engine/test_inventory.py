"""The estimate of models that are not here yet: as the one of the same model that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsvl_cli.engine.checkpoint.find import ALIASES
from dsvl_cli.engine.inventory import list_models
from dsvl_cli.engine.machine.detect import Gpu, Machine


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("machine", "fits", "fits_in_4bit"),
    [
        (Machine(memory_free=4 * 10**9), [], ["1.3b"]),
        (Machine(memory_free=8 * 10**9), ["1.3b"], ["1.3b"]),
        (Machine(memory_free=14 * 10**9), ["1.3b"], ["1.3b", "7b"]),
        (Machine(memory_free=24 * 10**9), ["1.3b", "7b"], ["1.3b", "7b"]),
        (Machine(memory_free=10**9, cuda=(Gpu("big", 80 * 10**9, (9, 0)),)), ["1.3b", "7b"], ["1.3b", "7b"]),
        (Machine(memory_free=24 * 10**9, cuda=(Gpu("small", 10**9, (9, 0)),)), [], []),
    ],
)
def test_what_would_fit_is_known_before_the_download(
    machine: Machine, fits: list[str], fits_in_4bit: list[str]
) -> None:
    found = {entry.name: entry.fit for entry in list_models({}, machine) if entry.name in ("1.3b", "7b")}
    assert [name for name, fit in found.items() if fit and fit.fits] == fits
    assert [name for name, fit in found.items() if fit and fit.fits_in_4bit] == fits_in_4bit


def test_names_are_each_listed_once_and_need_no_machine() -> None:
    entries = list_models({"work": "org/name", "1.3b": "org/mine"})
    assert [entry.name for entry in entries] == ["work", "1.3b", *(name for name in ALIASES if name != "1.3b")]
    assert all(entry.fit is None for entry in entries)
    assert next(entry for entry in entries if entry.name == "1.3b").target == "org/mine"

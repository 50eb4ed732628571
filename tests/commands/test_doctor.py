"""`dsvl doctor` on the command line; what stands on the page is tested in tests/app/test_doctor.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsvl_cli.cli import main
from dsvl_cli.engine.diagnosis import Finding
from dsvl_cli.engine.machine.detect import Machine
from tests.test_imports import HEAVY, loaded_by


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a GPU, and empty folders for everything."""
    monkeypatch.setattr("dsvl_cli.engine.diagnosis.find_machine", lambda: Machine(memory_free=16 * 10**9))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DSVL_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("DSVL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_a_sound_machine_has_a_page_and_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("fine")
    assert "\ndsvl\n  version" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_profile_is_named_by_an_option_or_a_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "environment":
        monkeypatch.setenv("DSVL_PROFILE", "fats")
    assert main(["doctor", "--json", *(["--profile", "fats"] if way == "option" else [])]) == 1
    captured = capsys.readouterr()
    assert "fats" in json.loads(captured.out)["problems"][0]["message"]
    assert captured.err == ""


@pytest.mark.parametrize("wanted", [True, False])
def test_measuring_is_passed_on(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    asked = []

    def describe(_: Machine, *, renew: bool) -> Finding:
        asked.append(renew)
        return Finding()

    monkeypatch.setattr("dsvl_cli.engine.diagnosis.describe_products", describe)
    assert main(["doctor", *(["--measure"] if wanted else [])]) == 0
    assert asked == [wanted]


def test_help_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert loaded_by("from dsvl_cli.cli import main\nassert main(['doctor', '--help']) == 0").isdisjoint(HEAVY)

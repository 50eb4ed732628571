"""`dsvl config` on the command line; what its commands do is tested in tests/app/test_config.py."""

from __future__ import annotations

import pytest

from dsvl_cli.cli import main
from dsvl_cli.errors import ExitStatus
from tests.test_imports import HEAVY, loaded_by


def test_bare_config_names_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == ExitStatus.USAGE
    assert "example, path, edit" in capsys.readouterr().err


def test_the_example_needs_nothing_heavy() -> None:
    assert loaded_by("from dsvl_cli.cli import main\nassert main(['config', 'example']) == 0").isdisjoint(HEAVY)

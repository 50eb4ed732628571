"""Checkpoints that an older transformers really wrote: `.ci/run` makes them with writer.py, in an environment apart.

python -m pytest tests/foreign --foreign FOLDER     # FOLDER holds a checkpoint in each of its subfolders
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.layout_matrix import ACTIONS, check


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Do everything with each checkpoint."""
    given = metafunc.config.getoption("--foreign")
    folders = sorted(path for path in Path(given).iterdir() if (path / "config.json").is_file()) if given else []
    if "folder" in metafunc.fixturenames:
        metafunc.parametrize("folder", folders, ids=[folder.name for folder in folders])
    if "action" in metafunc.fixturenames:
        metafunc.parametrize("action", ACTIONS)


def test_everything_works(
    folder: Path, action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(action, folder, tmp_path, capsys, monkeypatch)


def test_it_was_written_by_another_release(folder: Path) -> None:
    from transformers import __version__

    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))["transformers_version"]
    assert written.split(".")[0] < __version__.split(".")[0]

"""`dsvl batch` within the process, with a fake model."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.cli import main
from tests.batch.fakes import FakeBatchModel

Batch = Callable[..., int]


def fake_batch(monkeypatch: pytest.MonkeyPatch) -> tuple[Batch, FakeBatchModel]:
    """Return a function that runs `dsvl batch`, and the model that answers in all its runs."""
    model = FakeBatchModel()
    module: Any = types.ModuleType("dsvl_cli.engine.model")
    module.load_model = lambda *_: model
    monkeypatch.setitem(sys.modules, "dsvl_cli.engine.model", module)

    def run(*arguments: str | Path) -> int:
        model.asked.clear()
        return main(["batch", *map(str, arguments), "--model", "tiny"])

    return run, model

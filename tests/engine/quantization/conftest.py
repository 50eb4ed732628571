"""Skeletons of both models, which several tests of this room share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, check_folder


@pytest.fixture(scope="module")
def skeletons(hybrid_folder: Path) -> dict[str, Any]:
    """Modules without weights, by the name of the model."""
    from dsvl_cli.engine.network.model_class import make_skeleton  # imports torch

    return {
        "tiny": make_skeleton(check_folder("tiny", EMBEDDED_FOLDER)),
        "hybrid": make_skeleton(check_folder("hybrid", hybrid_folder)),
    }

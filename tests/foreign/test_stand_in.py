"""The stand-in for files of an older transformers is what that release really wrote: see test_written.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from tests.hub_layout import write_hub_layout


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Compare with each checkpoint."""
    given = metafunc.config.getoption("--foreign")
    folders = sorted(path for path in Path(given).iterdir() if (path / "config.json").is_file()) if given else []
    metafunc.parametrize("folder", folders, ids=[folder.name for folder in folders])


def read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Give the small files, JSON as its value, and the tensors of all files of weights."""
    small: dict[str, Any] = {}
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            tensors |= load_file(file)
        elif not file.name.endswith(".index.json"):
            text = file.read_text(encoding="utf-8")
            small[file.name] = json.loads(text) if file.suffix == ".json" else text
    return small, tensors


def test_it_has_the_same_files_with_the_same_content(folder: Path, hybrid_folder: Path, tmp_path: Path) -> None:
    small, tensors = read(folder)
    config = small["config.json"]
    source = hybrid_folder if config["model_type"] == "deepseek_vl_hybrid" else EMBEDDED_FOLDER
    dtype = getattr(torch, config["torch_dtype"])
    shards = max(1, len(list(folder.glob("model-*.safetensors"))))
    tied = bool(config["text_config"].get("tie_word_embeddings"))
    found, made = read(write_hub_layout(source, tmp_path / "made", dtype=dtype, tied=tied, shards=shards))
    assert found == small
    assert {name: tensor.dtype for name, tensor in made.items()} == {name: t.dtype for name, t in tensors.items()}
    assert all(torch.equal(made[name], tensor) for name, tensor in tensors.items())
    indexes = [path / "model.safetensors.index.json" for path in (folder, tmp_path / "made")]
    assert indexes[0].exists() == indexes[1].exists()
    if shards > 1:
        written, ours = (json.loads(path.read_text(encoding="utf-8")) for path in indexes)
        assert ours["metadata"] == written["metadata"]
        assert list(ours["weight_map"]) == list(written["weight_map"])

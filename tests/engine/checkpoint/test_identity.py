"""A checkpoint is told by its whole content: no weight can change without another model."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, check_folder
from dsvl_cli.engine.checkpoint.watch import Watch
from dsvl_cli.errors import DsvlError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "copy"))


def tensor_places() -> Iterator[tuple[str, int]]:
    """The name of each tensor, and a byte of it."""
    with (EMBEDDED_FOLDER / "model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    rng = random.Random(0)
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, 8 + length + rng.randrange(*entry["data_offsets"])


@pytest.mark.fault("changed weights", cases=111)
def test_no_tensor_lies_between_what_is_looked_at(folder: Path) -> None:
    prints = {check_folder("copy", folder).fingerprint}
    places = list(tensor_places())
    for _, place in places:
        with (folder / "model.safetensors").open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))
        prints.add(check_folder("copy", folder).fingerprint)
    assert len(prints) == len(places) + 1


@pytest.mark.fault("changed weights", cases=3)
def test_a_change_in_place_is_noticed(folder: Path) -> None:
    weights = folder / "model.safetensors"
    for change in ("truncate", "write", "copy"):
        watch = Watch([weights])
        watch.check()
        if change == "truncate":
            with weights.open("r+b") as file:
                file.truncate(1000)
        elif change == "write":
            with weights.open("r+b") as file:
                file.write(b"x")
        else:
            shutil.copyfile(EMBEDDED_FOLDER / "model.safetensors", weights)
        with pytest.raises(DsvlError, match="was changed while it was in use"):
            watch.check()


def test_a_replacement_is_no_change_of_what_is_mapped(folder: Path) -> None:
    weights = folder / "model.safetensors"
    watch = Watch([weights])
    shutil.copyfile(weights, folder / "new")
    (folder / "new").replace(weights)
    watch.check()
    weights.unlink()
    watch.check()

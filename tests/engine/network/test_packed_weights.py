"""Packed weights in the cache: whole, of the same checkpoint, and nobody else's, or packed again."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

from dsvl_cli.engine.kernels.stored_weights import Kind, Weight, dequantize, quantize
from dsvl_cli.engine.network import packed_weights
from dsvl_cli.engine.network.packed_weights import Packing, pack_weights
from dsvl_cli.engine.progress import Silence
from dsvl_cli.engine.storage.cache_folder import BoundedFolder

SOURCE = torch.randn((48, 128), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path) -> BoundedFolder:
    return BoundedFolder(tmp_path / "packed", 10**8)


class Maker:
    """Packs two layers, and counts how often."""

    def __init__(self, folder: BoundedFolder) -> None:
        self.count = 0
        self._folder = folder

    def load(self) -> torch.Tensor:
        """Load or pack both layers; return one as numbers."""
        kinds = {"one": Kind.INT8, "two": Kind.INT4}
        layers = {name: Packing(kind, SOURCE, partial(self._make, kind)) for name, kind in kinds.items()}
        return dequantize(pack_weights("model", layers, Silence(), self._folder)["one"])

    def _make(self, kind: Kind) -> Weight:
        self.count += 1
        return quantize(SOURCE, kind)


def only_file(folder: BoundedFolder) -> Path:
    ((path, _),) = folder.list_files()
    return path


def test_weights_are_packed_once(folder: BoundedFolder) -> None:
    maker = Maker(folder)
    assert torch.equal(maker.load(), maker.load())
    assert maker.count == 2


@pytest.mark.fault("damaged cache", cases=20)
def test_a_flipped_bit_is_noticed_wherever_it_is(folder: BoundedFolder) -> None:
    maker = Maker(folder)
    wanted = maker.load()
    path, rng = only_file(folder), random.Random(1)
    for _ in range(20):
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        assert torch.equal(maker.load(), wanted)
    assert maker.count >= 30  # a flipped bit of a name or a number in the header may leave the weights as they are


@pytest.mark.fault("damaged cache", cases=5)
def test_a_truncated_file_is_packed_again(folder: BoundedFolder) -> None:
    maker = Maker(folder)
    wanted = maker.load()
    for share in (0, 0.01, 0.5, 0.9, 0.999):
        data = only_file(folder).read_bytes()
        only_file(folder).write_bytes(data[: int(len(data) * share)])
        assert torch.equal(maker.load(), wanted)


def test_a_file_is_compared_once(folder: BoundedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker(folder)
    maker.load()
    monkeypatch.setattr(packed_weights, "_describe", lambda _: pytest.fail("compared again"))
    maker.load()
    monkeypatch.undo()
    status = only_file(folder).stat()
    os.utime(only_file(folder), ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    compared = []
    describe = packed_weights._describe

    def count(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
        compared.append(1)
        return describe(tensors)

    monkeypatch.setattr(packed_weights, "_describe", count)
    maker.load()
    assert compared == [1]
    assert maker.count == 2


@pytest.mark.fault("another user's file")
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_weights_that_others_could_write_are_not_used(folder: BoundedFolder) -> None:
    maker = Maker(folder)
    maker.load()
    only_file(folder).chmod(0o666)
    maker.load()
    assert maker.count == 4
    folder.path.chmod(0o777)
    maker.load()
    assert maker.count == 6

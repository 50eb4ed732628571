"""Weights in dsvl's own formats, kept in the cache folder: packed once, mapped into memory from then on.

The folder is bounded: what was not used for longest makes room.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dsvl_cli.engine.kernels import Kernels, Kind, Weight
from dsvl_cli.engine.native.compiler import cache_folder
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.safetensors import serialize

LARGEST_BYTES = 16 * 10**9  # of all files together
_VERSION = "1"  # of the way of packing


def packed_folder() -> Path:
    """Give the folder."""
    return cache_folder() / "packed"


def list_packed(folder: Path | None = None) -> list[tuple[Path, int]]:
    """List the files with their sizes in bytes, the one that was used last at the end."""
    found = []
    for path in (folder or packed_folder()).glob("*.safetensors"):
        with contextlib.suppress(OSError):  # another process has just removed it
            status = path.stat()
            found.append((status.st_mtime, path, status.st_size))
    return [(path, size) for _, path, size in sorted(found)]


def pack_weights(
    name: str,
    tensors: Mapping[str, torch.Tensor],
    layers: list[str],
    kind: Kind,
    kernels: Kernels,
    listener: Listener,
    folder: Path | None = None,
) -> dict[str, Weight]:
    """Give linear layers in a narrow format, from the cache folder or packed now.

    Args:
        name: identifies the checkpoint.
        tensors: the checkpoint's.
        layers: the names of the layers, without `.weight`.
        kind: INT8 or INT4.
        kernels: pack.
        listener: is told of the progress.
        folder: where it is kept; by default `packed_folder()`.

    Returns:
        the weights by the names of their layers.
    """
    place = (folder or packed_folder()) / f"{name[:32]}-{kind.name.lower()}-{len(layers)}-{_VERSION}.safetensors"
    kept = _read(place, layers, kind)
    if kept is not None:
        return kept
    total = sum(tensors[f"{layer}.weight"].nbytes for layer in layers)
    done = 0
    weights = {}
    for layer in layers:
        listener.progress(f"packing for {kind.name.lower()}", done, total)
        weight = tensors[f"{layer}.weight"]
        weights[layer] = kernels.quantize(weight, kind)
        done += weight.nbytes
    listener.progress(f"packing for {kind.name.lower()}", total, total)
    try:
        _write(place, weights)
    except OSError as exc:
        listener.note(f"the packed weights cannot be kept: {exc.strerror or exc}; they are packed anew next time")
        return weights
    # Mapped, they are shared by all processes and need not be written to swap.
    return _read(place, layers, kind) or weights


def _read(place: Path, layers: list[str], kind: Kind) -> dict[str, Weight] | None:
    try:
        with safe_open(place, framework="pt") as file:
            weights = {layer: _weight(file, layer, kind) for layer in layers}
        os.utime(place)
    except (OSError, SafetensorError):
        return None
    return weights


def _weight(file: Any, layer: str, kind: Kind) -> Weight:
    data: torch.Tensor = file.get_tensor(f"{layer}.data")
    columns = data.shape[1] * (2 if kind is Kind.INT4 else 1)
    return Weight(kind, data, file.get_tensor(f"{layer}.scales"), (data.shape[0], columns))


def _write(place: Path, weights: Mapping[str, Weight]) -> None:
    """Write a file beside its place and rename it, after making room."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_room(place.parent, sum(weight.nbytes for weight in weights.values()))
    tensors = dict(_parts(weights))
    with _temporary(place.parent) as path:
        with path.open("wb") as file:
            for piece in serialize(tensors, {}):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        path.replace(place)


def _parts(weights: Mapping[str, Weight]) -> Iterator[tuple[str, torch.Tensor]]:
    for layer, weight in weights.items():
        assert weight.scales is not None
        yield f"{layer}.data", weight.data
        yield f"{layer}.scales", weight.scales


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=folder, prefix=".packing-")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


def _make_room(folder: Path, needed: int) -> None:
    kept = list_packed(folder)
    taken = sum(size for _, size in kept)
    for path, size in kept:
        if taken + needed <= LARGEST_BYTES:
            return
        path.unlink(missing_ok=True)
        taken -= size

"""Weights in dsvl's own formats, kept in the cache folder: quantized once, memory-mapped from then on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dsvl_cli.engine.kernels.kernels import Kernels
from dsvl_cli.engine.kernels.stored_weights import Kind, Weight
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.storage.cache_folder import BoundedFolder, packed_weights_folder

_VERSION = "2"  # of the packed format


def pack_weights(
    name: str,
    tensors: Mapping[str, torch.Tensor],
    layers: list[str],
    kind: Kind,
    kernels: Kernels,
    listener: Listener,
    folder: BoundedFolder | None = None,
) -> dict[str, Weight]:
    """Return linear layers in 8 or 4 bits, from the cache folder or quantized now.

    Args:
        name: identifies the checkpoint.
        tensors: of the checkpoint.
        layers: the names of the layers, without `.weight`.
        kind: INT8 or INT4.
        kernels: quantize the weights.
        listener: receives the progress.
        folder: where they are kept; `packed_weights_folder()` by default.

    Returns:
        the weights by layer name.
    """
    folder = folder or packed_weights_folder()
    name = f"{name[:32]}-{kind.name.lower()}-{len(layers)}-{_VERSION}"
    cached = _read(folder.place(name), layers, kind)
    if cached is not None:
        return cached
    total = sum(tensors[f"{layer}.weight"].nbytes for layer in layers)
    done = 0
    weights = {}
    for layer in layers:
        listener.progress(f"quantizing to {kind.name.lower()}", done, total)
        weight = tensors[f"{layer}.weight"]
        weights[layer] = kernels.quantize(weight, kind)
        done += weight.nbytes
    listener.progress(f"quantizing to {kind.name.lower()}", total, total)
    try:
        folder.write(name, dict(_parts(weights)), {})
    except OSError as exc:
        listener.note(
            f"the quantized weights cannot be cached: {exc.strerror or exc}; next time they are quantized again"
        )
        return weights
    # Memory-mapped, they are shared between processes and need no swap.
    return _read(folder.place(name), layers, kind) or weights


def _read(path: Path, layers: list[str], kind: Kind) -> dict[str, Weight] | None:
    try:
        with safe_open(path, framework="pt") as file:
            weights = {layer: _weight(file, layer, kind) for layer in layers}
        os.utime(path)
    except (OSError, SafetensorError):
        return None
    return weights


def _weight(file: Any, layer: str, kind: Kind) -> Weight:
    data: torch.Tensor = file.get_tensor(f"{layer}.data")
    columns = data.shape[1] * (2 if kind is Kind.INT4 else 1)
    return Weight(kind, data, file.get_tensor(f"{layer}.scales"), (data.shape[0], columns))


def _parts(weights: Mapping[str, Weight]) -> Iterator[tuple[str, torch.Tensor]]:
    for layer, weight in weights.items():
        assert weight.scales is not None
        yield f"{layer}.data", weight.data
        yield f"{layer}.scales", weight.scales

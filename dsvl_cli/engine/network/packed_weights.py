"""Weights in dsvl's own formats, kept in the cache folder: quantized once, memory-mapped from then on.

A file carries the SHA-256 of each of its tensors. They are compared once per file, time of its last change and boot:
the 0.9 GB of the 1.3b in 4 bits take 0.3 s, as long as a warm start may be, and the same bytes do not change by
themselves between two starts. What does change is another file, another time, or was lost with the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dsvl_cli.engine.kernels.stored_weights import Kind, Weight, count_packed_bytes
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.storage.cache_folder import BoundedFolder, packed_weights_folder
from dsvl_cli.engine.storage.contents import hash_pieces

_VERSION = "4"  # of the packed format


@dataclass(frozen=True, slots=True)
class Packing:
    """A linear layer to be packed.

    Attributes:
        kind: INT8 or INT4.
        source: what is packed, `(out_features, in_features)`.
        make: packs it.
    """

    kind: Kind
    source: torch.Tensor
    make: Callable[[], Weight]

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return self.source.numel()

    @property
    def packed_bytes(self) -> int:
        """The size of the packed weight."""
        return count_packed_bytes(self.kind, self.source.shape[0], self.source.shape[1])


def pack_weights(
    name: str, layers: Mapping[str, Packing], listener: Listener, folder: BoundedFolder | None = None
) -> dict[str, Weight]:
    """Return linear layers in 8 or 4 bits, from the cache folder or packed now.

    Args:
        name: identifies the checkpoint and how it is packed.
        layers: by name, without `.weight`.
        listener: receives the progress.
        folder: where they are kept; `packed_weights_folder()` by default.

    Returns:
        the weights by layer name.
    """
    folder = folder or packed_weights_folder()
    name = f"{name}-{len(layers)}-{_VERSION}"
    kinds = {layer: packing.kind for layer, packing in layers.items()}
    cached = _read(folder, name, kinds)
    if cached is not None:
        return cached
    total = sum(packing.source.nbytes for packing in layers.values())
    task = f"quantizing to {' and '.join(sorted({kind.name.lower() for kind in kinds.values()}))}"
    done = 0
    weights = {}
    for layer, packing in layers.items():
        listener.progress(task, done, total)
        weights[layer] = packing.make()
        done += packing.source.nbytes
    listener.progress(task, total, total)
    try:
        tensors = dict(_parts(weights))
        folder.write(name, tensors, _describe(tensors))
    except OSError as exc:
        listener.note(
            f"the quantized weights cannot be cached: {exc.strerror or exc}; next time they are quantized again"
        )
        return weights
    # Memory-mapped, they are shared between processes and need no swap.
    return _read(folder, name, kinds) or weights


def _read(folder: BoundedFolder, name: str, kinds: Mapping[str, Kind]) -> dict[str, Weight] | None:
    path = folder.find(name)
    if path is None:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if not folder.is_checked(path):
                tensors = {stored: file.get_tensor(stored) for stored in file.keys()}  # noqa: SIM118  (not a dict)
                if file.metadata() != _describe(tensors):
                    return None
                folder.note_checked(path)
            weights = {layer: _weight(file, layer, kind) for layer, kind in kinds.items()}
        folder.touch(path)
    except (OSError, SafetensorError, ValueError):
        return None
    return weights


def _describe(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return a file's metadata: the digest of each tensor."""
    arrays: list[Any] = [tensor.reshape(-1).view(torch.uint8).numpy() for tensor in tensors.values()]
    pieces = [memoryview(array) for array in arrays]
    return {"format": "pt", **dict(zip(tensors, hash_pieces(pieces), strict=True))}


def _weight(file: Any, layer: str, kind: Kind) -> Weight:
    data: torch.Tensor = file.get_tensor(f"{layer}.data")
    outs, columns = (int(number) for number in file.get_tensor(f"{layer}.shape"))
    return Weight(kind, data, file.get_tensor(f"{layer}.scales"), (outs, columns))


def _parts(weights: Mapping[str, Weight]) -> Iterator[tuple[str, torch.Tensor]]:
    for layer, weight in weights.items():
        assert weight.scales is not None
        yield f"{layer}.data", weight.data
        yield f"{layer}.scales", weight.scales
        yield f"{layer}.shape", torch.tensor(weight.shape)

"""Checkpoint -> quantized checkpoint, tensor by tensor: no module with weights is built, and no forward pass is run.

The result is what transformers would have saved, and loads with plain transformers (tests/engine/conversion/
test_convert.py). Loading, quantizing and saving the whole model would need memory for all of it. It would also write
wrong weights after a forward pass: on some CPUs bitsandbytes repacks its weights at first use, and what it saves after
that is damaged.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.checkpoint.hub import is_needed
from dsvl_cli.engine.conversion.model_card import write_model_card
from dsvl_cli.engine.conversion.source import SourceWeights
from dsvl_cli.engine.network.library_logging import import_backend, mute_libraries
from dsvl_cli.engine.network.model_class import make_skeleton
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.quantization.backends import make_quantization_config
from dsvl_cli.engine.quantization.formats import Recipe, find_stored_format
from dsvl_cli.engine.quantization.packing import Tensors, pack_weight
from dsvl_cli.engine.quantization.selection import (
    Selection,
    count_stored_bytes,
    report_selection,
    select_layers,
    shorten_name,
)
from dsvl_cli.engine.storage.folders import NewFolder
from dsvl_cli.engine.storage.safetensors import serialize
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DsvlError

SHARD_BYTES = 10**9
_RESERVE = 64 * 2**20  # bytes to leave free on the disk


@dataclass(frozen=True, slots=True)
class Written:
    """A quantized checkpoint on disk.

    Attributes:
        path: the folder.
        selection: the quantized layers, and those whose shape does not allow it.
        weight_bytes: the size of the weights.
    """

    path: Path
    selection: Selection
    weight_bytes: int


def quantize_checkpoint(
    checkpoint: Checkpoint,
    target: Path,
    recipe: Recipe,
    listener: Listener,
    *,
    device: str = "cpu",
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Written:
    """Write a quantized copy of a checkpoint. The folder appears at the end, complete, or not at all.

    Args:
        checkpoint: the source, not quantized.
        target: the new folder.
        recipe: what to quantize, and to which format.
        listener: receives the progress, and the layers that cannot be quantized.
        device: where torchao computes; its 4-bit packing depends on the kind of device.
        overwrite: replace an existing model folder.
        shard_bytes: the largest size of a file; a larger single tensor gets its own.

    Raises:
        DsvlError: the target exists, the disk is full or not writable, or the files of the checkpoint do not match each
            other.
    """
    stored = find_stored_format(checkpoint)
    if stored is not None:
        raise DsvlError(f"{checkpoint.name} is already quantized, as {stored}", "use the original model")
    target = check_target(checkpoint.path, target, overwrite=overwrite)
    import_backend(recipe.format.package)
    with mute_libraries():
        skeleton = make_skeleton(checkpoint)
    selection = select_layers(skeleton, recipe)
    report_selection(selection, recipe, listener)
    dtype = getattr(skeleton.config, "dtype", None) or torch.bfloat16
    check_room(target, count_stored_bytes(skeleton, selection, recipe, dtype.itemsize))
    try:
        with NewFolder(target, overwrite=overwrite) as folder, SourceWeights(checkpoint, skeleton) as source:
            shards = _Shards(folder, source.names, shard_bytes, is_torchao=recipe.format.package == "torchao")
            _write_weights(source, shards, selection, recipe, device, dtype, listener)
            shards.finish()
            skeleton.config.quantization_config = make_quantization_config(recipe, selection, device)
            skeleton.config.architectures = [type(skeleton).__name__]
            folder.write("config.json", [skeleton.config.to_json_string().encode()])
            for path in _find_companions(checkpoint):
                folder.write(path.name, [path.read_bytes()])
            card = write_model_card(checkpoint, recipe, selection, shards.total_bytes)
            folder.write("README.md", [card.encode()])
            folder.commit()
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise DsvlError(
                f"the disk is full: {target} was not written", "free some space, or use another disk"
            ) from exc
        raise DsvlError(f"{target} cannot be written: {exc.strerror}", "use another folder") from exc
    return Written(target, selection, shards.total_bytes)


def check_target(source: Path, target: Path, *, overwrite: bool) -> Path:
    """Refuse a target that must not be written; return its real path, with links resolved.

    Raises:
        DsvlError: the target exists, contains the source, or is inside it.
    """
    path, source = Path(os.path.realpath(target)), Path(os.path.realpath(source))
    if path == source or path in source.parents or source in path.parents:
        raise DsvlError(f"{target} contains the model or is inside its folder", "use a separate folder")
    if not os.path.lexists(path):
        return path
    if not path.is_dir():
        raise DsvlError(f"{target} is a file", "use the name of a folder")
    if not overwrite:
        raise DsvlError(f"{target} already exists", "--overwrite replaces it")
    if any(path.iterdir()) and not (path / "config.json").is_file():
        raise DsvlError(f"{target} is not a model, and --overwrite replaces only models", "use another folder")
    return path


def check_room(target: Path, needed: int) -> None:
    """Refuse a disk without enough free space.

    Raises:
        DsvlError: with the figures.
    """
    free = shutil.disk_usage(next(folder for folder in target.parents if folder.exists())).free
    if free < needed + _RESERVE:
        raise DsvlError(
            f"{target} needs {format_bytes(needed + _RESERVE)}, but its disk has {format_bytes(free)} free",
            "free some space, or use another disk",
        )


@dataclass
class _Shards:
    """Collects tensors and writes them to files of limited size.

    Attributes:
        folder: where the files are written.
        names: of the module's whole state; torchao's reader needs the list in every file.
        limit: the largest size of a file, in bytes.
        is_torchao: whether the files have torchao's metadata.
    """

    folder: NewFolder
    names: list[str]
    limit: int
    is_torchao: bool
    total_bytes: int = 0
    _tensors: Tensors = field(default_factory=dict)
    _metadata: dict[str, str] = field(default_factory=dict)
    _files: list[list[str]] = field(default_factory=list)

    def add(self, tensors: Tensors, metadata: dict[str, str]) -> None:
        """Add the tensors of one weight."""
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self._tensors and sum(tensor.nbytes for tensor in self._tensors.values()) + size > self.limit:
            self._flush()
        self._tensors.update(tensors)
        self._metadata.update(metadata)
        self.total_bytes += size

    def _flush(self) -> None:
        common = {"tensor_names": json.dumps(self.names)} if self.is_torchao else {}
        self.folder.write_behind(f"shard-{len(self._files)}", serialize(self._tensors, {**self._metadata, **common}))
        self._files.append(list(self._tensors))
        self._tensors, self._metadata = {}, {}

    def finish(self) -> None:
        """Write the rest, rename the files, and write an index if there are several."""
        self._flush()
        count = len(self._files)
        if count == 1:
            self.folder.rename("shard-0", "model.safetensors")
            return
        weight_map = {}
        for number, names in enumerate(self._files):
            file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            self.folder.rename(f"shard-{number}", file)
            weight_map.update(dict.fromkeys(names, file))
        index = {"metadata": {"total_size": self.total_bytes}, "weight_map": weight_map}
        self.folder.write("model.safetensors.index.json", [json.dumps(index, indent=2, sort_keys=True).encode()])


def _write_weights(
    source: SourceWeights,
    shards: _Shards,
    selection: Selection,
    recipe: Recipe,
    device: str,
    dtype: torch.dtype,
    listener: Listener,
) -> None:
    quantized = {f"{name}.weight" for name in selection.quantized}
    total, done = source.total_bytes, 0
    for name, tensor in source.items():
        listener.progress(f"quantizing: {shorten_name(name)}", done, total)
        done += tensor.nbytes
        if tensor.is_floating_point():
            tensor = tensor.to(dtype)
        if name in quantized:
            shards.add(*pack_weight(name, tensor, recipe, device))
        else:
            shards.add({name: tensor}, {name: json.dumps({"_type": "Tensor"})} if shards.is_torchao else {})
    if shards.is_torchao:
        shards.add({}, {name: json.dumps({"_type": "Tensor"}) for name in source.tied})
    listener.progress("quantizing: done", total, total)


def _find_companions(checkpoint: Checkpoint) -> Iterator[Path]:
    """List the other files to copy: tokenizer, processor, chat template, generation config, licence."""
    for path in sorted(checkpoint.path.iterdir()):
        if path.suffix == ".safetensors" or path.name in ("config.json", "model.safetensors.index.json"):
            continue
        # Not for a base model: with a template it would be treated as a chat model.
        if path.name.startswith("chat_template") and not checkpoint.has_chat:
            continue
        if path.is_file() and (is_needed(path.name) or path.name.upper().startswith("LICENSE")):
            yield path

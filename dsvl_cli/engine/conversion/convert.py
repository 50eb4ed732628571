"""checkpoint -> a quantized checkpoint, tensor by tensor: no module is ever built with weights, nothing is computed.

What is written is what transformers would have saved, and loads with it anywhere (tests/engine/conversion/
test_convert.py).
Loading the model, quantizing it and saving it would hold all of it in memory, and would write wrong weights if a
prompt had gone through it before: on some CPUs bitsandbytes repacks its weights at the first use, and what it saves
after that is damaged.
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
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.quantization.backends import make_quantization_config, make_skeleton
from dsvl_cli.engine.quantization.formats import Recipe, find_stored_format
from dsvl_cli.engine.quantization.library_logging import import_backend, mute_libraries
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
    """A quantized checkpoint on the disk.

    Attributes:
        path: the folder.
        selection: which layers are quantized, and which are not though they were meant to be.
        weight_bytes: the size of its weights.
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
    """Write a quantized copy of a checkpoint. The folder appears at the end, whole, or not at all.

    Args:
        checkpoint: one that is not quantized.
        target: the new folder.
        recipe: what to quantize, and into what.
        listener: is told each layer, and what cannot be quantized.
        device: where torchao computes; its 4 bits are packed for one kind of device.
        overwrite: replace a model's folder that stands there.
        shard_bytes: begin another file when one would get larger than this.

    Raises:
        DsvlError: the target is not free, the disk is too small or cannot be written, or the files of the checkpoint
            do not fit together.
    """
    stored = find_stored_format(checkpoint)
    if stored is not None:
        raise DsvlError(f"{checkpoint.name} is quantized already, as {stored}", "take the original model")
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
            raise DsvlError(f"the disk is full: {target} was not written", "make room, or take another disk") from exc
        raise DsvlError(f"{target} cannot be written: {exc.strerror}", "take another folder") from exc
    return Written(target, selection, shards.total_bytes)


def check_target(source: Path, target: Path, *, overwrite: bool) -> Path:
    """Refuse a folder that must not be written, and give the place that it really is, links followed.

    Raises:
        DsvlError: it is taken, or it holds the source or lies in it.
    """
    place, source = Path(os.path.realpath(target)), Path(os.path.realpath(source))
    if place == source or place in source.parents or source in place.parents:
        raise DsvlError(f"{target} and the model lie in each other", "name a folder apart from the model's")
    if not os.path.lexists(place):
        return place
    if not place.is_dir():
        raise DsvlError(f"{target} is a file", "name a folder")
    if not overwrite:
        raise DsvlError(f"{target} exists", "--overwrite replaces it")
    if any(place.iterdir()) and not (place / "config.json").is_file():
        raise DsvlError(f"{target} holds no model, and --overwrite replaces only models", "name another folder")
    return place


def check_room(target: Path, needed: int) -> None:
    """Refuse a disk that is too small.

    Raises:
        DsvlError: with the figures.
    """
    free = shutil.disk_usage(next(folder for folder in target.parents if folder.exists())).free
    if free < needed + _RESERVE:
        raise DsvlError(
            f"{target} needs {format_bytes(needed + _RESERVE)}, and its disk has {format_bytes(free)} free",
            "make room, or take another disk",
        )


@dataclass
class _Shards:
    """Collects tensors and writes a file whenever there are enough of them.

    Attributes:
        folder: where the files go.
        names: of the module's whole state; torchao's readers want the list in each file.
        limit: of one file, in bytes.
        is_torchao: whether the files carry torchao's metadata.
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
        """Take the tensors of one weight."""
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
        """Write the rest, give the files their names, and write the index where there are several."""
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
    """List the files beside the weights: tokenizer, processor, chat template, generation config, licence."""
    for path in sorted(checkpoint.path.iterdir()):
        if path.suffix == ".safetensors" or path.name in ("config.json", "model.safetensors.index.json"):
            continue
        # A base model gets no template: with one it would be taken for a chat model.
        if path.name.startswith("chat_template") and not checkpoint.has_chat:
            continue
        if path.is_file() and (is_needed(path.name) or path.name.upper().startswith("LICENSE")):
            yield path

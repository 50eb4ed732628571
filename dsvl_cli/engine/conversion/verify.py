"""Whether a quantized checkpoint is faithful to its source: weights first, then answers about pictures.

The checkpoint is opened again from disk. Each layer's weights are dequantized and compared with the source, by the
error of the whole layer and of its worst 64 neighbouring weights; tensors that are not quantized must be equal. Then
both models describe pictures, see `compare.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.checkpoint.tensors import StoredTensors
from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.conversion.compare import Comparison, bounded, compare_answers, run_model
from dsvl_cli.engine.conversion.source import SourceWeights
from dsvl_cli.engine.network.library_logging import import_backend, mute_libraries
from dsvl_cli.engine.network.model_class import make_skeleton
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.quantization.formats import FORMATS, Format, find_stored_format
from dsvl_cli.engine.quantization.packing import unpack_weight
from dsvl_cli.engine.quantization.selection import shorten_name
from dsvl_cli.errors import DsvlError

MAX_MEAN_KL = {4: 0.5, 8: 0.05}  # by bits, in nats; damaged weights cause several nats
_NEIGHBOURS = 64


@dataclass(frozen=True, slots=True)
class LayerError:
    """The error of a layer's dequantized weights, relative to the norm of the source.

    Attributes:
        name: of the weight.
        whole: error of the whole layer.
        worst: error of the worst 64 neighbouring weights.
    """

    name: str
    whole: float
    worst: float


@dataclass(frozen=True, slots=True)
class Weights:
    """The result of comparing weights.

    Attributes:
        layers: the errors of the quantized layers.
        changed: names of tensors that are not quantized but differ from the source.
        damaged: names of quantized weights with a larger error than their format explains.
    """

    layers: tuple[LayerError, ...]
    changed: tuple[str, ...]
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """The costs of one model.

    Attributes:
        disk_bytes: the size of its weights.
        memory_bytes: approximate growth of the process while it was loaded and answered.
        tokens_per_second: of decoding.
    """

    disk_bytes: int
    memory_bytes: int
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification.

    Attributes:
        weights: the comparison of the weights.
        answers: the comparison of the answers; None if the weights have problems, then no model is run.
        source, quantized: the costs of the models; None likewise.
        problems: one line for each failed check; empty if there is none.
    """

    weights: Weights
    answers: Comparison | None
    source: Figures | None
    quantized: Figures | None
    problems: tuple[str, ...]


def verify_checkpoint(
    source: Checkpoint, written: Checkpoint, options: LoadOptions, pictures: Sequence[Picture], listener: Listener
) -> Verification:
    """Compare a quantized checkpoint with its source.

    Args:
        source: the original.
        written: the quantized copy.
        options: device, dtype and so on for both; the model in them is ignored.
        pictures: the pictures to describe.
        listener: receives the progress.

    Raises:
        DsvlError: one of them is incomplete or cannot be loaded.
    """
    weights = compare_weights(source, written, listener)
    problems = [f"{name} is damaged" for name in weights.damaged] + [f"{name} was changed" for name in weights.changed]
    if problems:
        return Verification(weights, None, None, None, tuple(problems))
    options = replace(options, quantization=None, revision=None)
    ours = run_model(replace(options, model=str(source.path)), pictures, listener)
    theirs = run_model(replace(options, model=str(written.path)), pictures, listener, ours.token_ids)
    answers = compare_answers(ours, theirs)
    limit = MAX_MEAN_KL[FORMATS[find_stored_format(written) or ""].bits]
    if answers.mean_kl > limit:
        problems.append(f"the answers diverge by {answers.mean_kl:.3f} nats per token; the limit is {limit}")
    return Verification(
        weights,
        answers,
        Figures(source.weight_bytes, ours.memory_bytes, ours.tokens_per_second),
        Figures(written.weight_bytes, theirs.memory_bytes, theirs.tokens_per_second),
        tuple(problems),
    )


def compare_weights(source: Checkpoint, written: Checkpoint, listener: Listener) -> Weights:
    """Compare a quantized checkpoint's weights with those of its source, one by one.

    Raises:
        DsvlError: it is not quantized, or a tensor is missing in one of the two.
    """
    name = find_stored_format(written)
    if name is None:
        raise DsvlError(f"{written.name} is not quantized", "there is nothing to verify")
    entry = FORMATS[name]
    import_backend(entry.package)
    layers: list[LayerError] = []
    changed: list[str] = []
    with mute_libraries():
        skeleton = make_skeleton(source)
    with SourceWeights(source, skeleton) as originals, _QuantizedTensors(written) as copies:
        done = 0
        for weight_name, original in originals.items():
            listener.progress(f"verifying: {shorten_name(weight_name)}", done, originals.total_bytes)
            done += original.nbytes
            copy, is_quantized = copies.read(weight_name)
            if is_quantized:
                layers.append(_measure(weight_name, original.float(), copy))
            elif not torch.equal(original.to(copy.dtype), copy):
                changed.append(weight_name)
        listener.progress("verifying: done", originals.total_bytes, originals.total_bytes)
    damaged = tuple(layer.name for layer in layers if not _is_sound(layer, entry))
    return Weights(tuple(layers), tuple(changed), damaged)


class _QuantizedTensors:
    """The tensors of a quantized checkpoint, grouped by weight."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._name = checkpoint.name
        self._tensors = StoredTensors(checkpoint)

    def __enter__(self) -> _QuantizedTensors:
        self._tensors.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._tensors.__exit__(*exception)

    def read(self, name: str) -> tuple[torch.Tensor, bool]:
        """Return a weight, dequantized to float32 if it is quantized, and whether it is.

        Raises:
            DsvlError: it is missing.
        """
        tensors = {key: self._tensors[key] for key in self._keys(name)}
        if set(tensors) == {name}:
            return tensors[name], False
        if not tensors:
            raise DsvlError(f"{self._name} has no {name}", "quantize the model again")
        return unpack_weight(name, tensors, self._tensors.metadata), True

    def _keys(self, name: str) -> Iterator[str]:
        layer, _, last = name.rpartition(".")
        prefixes = (f"{name}.", f"{layer}._{last}_")
        extra = {name, *((f"{layer}.SCB",) if last == "weight" else ())}
        return (key for key in self._tensors if key in extra or key.startswith(prefixes))


def _measure(name: str, original: torch.Tensor, copy: torch.Tensor) -> LayerError:
    difference = copy - original
    whole = bounded(float(difference.norm() / original.norm().clamp(min=1e-30)))
    neighbours = original.numel() - original.numel() % _NEIGHBOURS
    errors, norms = (
        values.reshape(-1)[:neighbours].view(-1, _NEIGHBOURS).norm(dim=1) for values in (difference, original)
    )
    worst = bounded(float((errors / norms.clamp(min=1e-30)).max())) if neighbours else whole
    return LayerError(name, whole, worst)


def _is_sound(layer: LayerError, entry: Format) -> bool:
    return layer.whole <= entry.layer_error and layer.worst <= entry.block_error

"""Checks the numbers in a checkpoint before any of them is used: as many as announced, and each of them one.

A single weight that is not a number makes every answer one. Quantized to 8 or 4 bits it would even vanish, together
with the row or the group that it is in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import torch

from dsvl_cli.engine.checkpoint.consistency import count_parameters
from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.checkpoint.tensors import StoredTensors
from dsvl_cli.engine.network.layers import DecoderConfig
from dsvl_cli.engine.network.weights import list_linears
from dsvl_cli.engine.quantization.formats import find_stored_format
from dsvl_cli.engine.storage import contents
from dsvl_cli.errors import DsvlError

_AGAIN = "download it again"
_STATE = ".quant_state.bitsandbytes__"
_BLOCK, _NESTED_BLOCK = 64, 256
_MOST_PACKED = 8  # weights in a stored value: torchao packs 8 of 4 bits


def check_numbers(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that lacks numbers, or has some that are none.

    All weights are read, which takes 0.2 s for each GB, once.

    Raises:
        DsvlError: it is damaged.
    """
    # Some more may be announced than stored: loaders name a tensor that is missing. What counts is that libraries do
    # not allocate what a stranger's number says.
    stored = 2 * checkpoint.parameters * (_MOST_PACKED if checkpoint.is_quantized else 1)
    if (wanted := count_parameters(checkpoint.config)) > stored:
        raise DsvlError(
            f"{checkpoint.name} is damaged: it has {checkpoint.parameters:,} numbers, "
            f"but config.json describes {wanted:,}",
            _AGAIN,
        )
    check_once(checkpoint, "finite", lambda: _check_values(checkpoint))


def check_once(checkpoint: Checkpoint, what: str, check: Callable[[], None]) -> None:
    """Check what follows from a checkpoint's content; for a large one this is noted, and done once."""
    fact = f"{checkpoint.fingerprint[:32]}-{what}"
    is_large = checkpoint.weight_bytes > contents.SMALL
    if is_large and contents.is_noted(fact):
        return
    check()
    if is_large:
        contents.note(fact)


def _check_values(checkpoint: Checkpoint) -> None:
    with StoredTensors(checkpoint) as tensors:
        _check_quantized(checkpoint, tensors)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and tensor.numel() and not is_finite(tensor):
                raise DsvlError(f"{checkpoint.name} is damaged: {name} holds values that are not numbers", _AGAIN)
            if _STATE in name:
                _check_packed(checkpoint, tensors, name)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are numbers: the least and the largest are NaN if any is."""
    return all(math.isfinite(float(end)) for end in torch.aminmax(tensor.reshape(-1)))


def _check_quantized(checkpoint: Checkpoint, tensors: StoredTensors) -> None:
    """Refuse a layer that the configuration calls quantized to 4 bits but that is stored otherwise."""
    if find_stored_format(checkpoint) not in ("bnb-nf4", "bnb-fp4"):
        return
    kept = checkpoint.config["quantization_config"].get("llm_int8_skip_modules") or []
    for layer in list_linears(DecoderConfig.read(checkpoint.config)):
        name = f"{layer}.weight"
        is_kept = any(isinstance(part, str) and part in layer for part in kept)
        if not is_kept and not any(f"{name}{_STATE}{kind}" in tensors for kind in ("nf4", "fp4")):
            raise DsvlError(f"{checkpoint.name} is damaged: {name} is not quantized", _AGAIN)


def _check_packed(checkpoint: Checkpoint, tensors: StoredTensors, name: str) -> None:
    """Compare the parts of a weight in bitsandbytes' 4 bits with each other; its code does not."""
    weight = name.partition(_STATE)[0].removesuffix(".")
    try:
        state = json.loads(bytes(tensors[name].tolist()))
        outs, columns = state["shape"]
        blocks = -(-outs * columns // _BLOCK)
        sizes = {weight: (outs * columns + 1) // 2, f"{weight}.absmax": blocks, f"{weight}.quant_map": 16}
        if f"{weight}.nested_absmax" in tensors:
            sizes |= {f"{weight}.nested_absmax": -(-blocks // _NESTED_BLOCK), f"{weight}.nested_quant_map": 256}
        fits = state["blocksize"] == _BLOCK and state.get("nested_blocksize", _NESTED_BLOCK) == _NESTED_BLOCK
        fits = fits and all(tensors[part].numel() == size for part, size in sizes.items())
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise DsvlError(f"{checkpoint.name} is damaged: {name} cannot be read", _AGAIN) from exc
    if not fits:
        raise DsvlError(f"{checkpoint.name} is damaged: the parts of {weight} do not fit each other", _AGAIN)

"""A checkpoint on the disk -> a `Network` in memory, in one of two ways.

    own            on a CPU, 1.3b and `tiny`, in 16 or 32 bits, in dsvl's own formats, or stored in bitsandbytes' 8 bits:
                   tensors are mapped from the files, and nothing of transformers is imported
    transformers   everything else: its modules hold and quantize the weights; our decoder calls its linear layers
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from dsvl_cli.engine.checkpoint import Checkpoint
from dsvl_cli.engine.decoder import DecoderConfig, read_module
from dsvl_cli.engine.hardware import DTYPE_BYTES, Plan, check_forecast, forecast_memory
from dsvl_cli.engine.kernels import Kernels, Kind, Linear, Weight, choose_kernels
from dsvl_cli.engine.network import Network
from dsvl_cli.engine.packed import pack_weights
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.quantization import FORMATS, Recipe, find_stored_format
from dsvl_cli.engine.vision import VisionTower
from dsvl_cli.engine.weights import HEAD, TensorFiles, can_read, list_linears, read_decoder, read_linear
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from dsvl_cli.engine.machine import Machine

_KINDS = {"int8": Kind.INT8, "int4": Kind.INT4}


def load_network(
    checkpoint: Checkpoint, plan: Plan, recipe: Recipe | None, machine: Machine, listener: Listener, *, force: bool
) -> Network:
    """Load a checkpoint as planned.

    Args:
        checkpoint: its files.
        plan: where, in which dtype.
        recipe: what to quantize while loading; a checkpoint that is stored so already needs none.
        machine: what it runs on.
        listener: is told what was chosen.
        force: load whatever the forecast says.

    Raises:
        DsvlError: it will not fit, or its files do not fit together.
    """
    kernels, choice = choose_kernels(
        plan.device, getattr(torch, plan.dtype), native_bf16=bool(machine.cpu_features)
    )
    listener.choice(choice)
    config = DecoderConfig.read(checkpoint.config.get("text_config") or {})
    stored = find_stored_format(checkpoint)
    own = recipe is not None and not recipe.format.is_stored
    if (
        checkpoint.model_type == "deepseek_vl"
        and plan.device == "cpu"
        and plan.attention == "sdpa"
        and (stored in (None, "bnb-int8"))
        and (recipe is None or own or stored is not None)
    ):
        with TensorFiles(checkpoint) as tensors:
            if can_read(checkpoint, tensors):
                _check_own(checkpoint, plan, config, recipe, force=force)
                return _load_own(checkpoint, plan, config, recipe if own else None, kernels, tensors, listener)
    if own:
        raise DsvlError(
            f"{checkpoint.name} cannot be loaded as {recipe.format.name}" if recipe else "",
            "it is for the 1.3b on a CPU: use --quantization bnb-nf4 or bnb-int8",
        )
    return _load_module(checkpoint, plan, config, recipe if stored is None else None, kernels, listener, force=force)


def _check_own(checkpoint: Checkpoint, plan: Plan, config: DecoderConfig, recipe: Recipe | None, *, force: bool) -> None:
    weights_bytes = None
    if recipe is not None and not checkpoint.is_quantized:
        quantized = config.linear_parameters + (config.head_parameters if recipe.include_head else 0)
        width = DTYPE_BYTES[plan.dtype]
        weights_bytes = (checkpoint.parameters - quantized) * width + int(quantized * recipe.bits_stored / 8)
    check_forecast(forecast_memory(checkpoint, plan, weights_bytes), force=force)


def _load_own(
    checkpoint: Checkpoint,
    plan: Plan,
    config: DecoderConfig,
    recipe: Recipe | None,
    kernels: Kernels,
    tensors: TensorFiles,
    listener: Listener,
) -> Network:
    from dsvl_cli.engine.pixels import read_pixel_format

    dtype = getattr(torch, plan.dtype)
    packed: dict[str, Weight] = {}
    if recipe is not None:
        names = list(list_linears(config))
        if recipe.include_head:
            if HEAD not in tensors:
                raise DsvlError(
                    "the head shares its weights with the embeddings and cannot be quantized", "drop --include-head"
                )
            names.append(HEAD.removesuffix(".weight"))
        kind = _KINDS[recipe.format.name]
        packed = pack_weights(checkpoint.fingerprint, tensors, names, kind, kernels, listener)

    def linear(name: str) -> Linear:
        return packed[name] if name in packed else read_linear(tensors, name, dtype)

    decoder = read_decoder(tensors, config, dtype, kernels, linear)
    widen = {name: tensor.to(dtype) for name, tensor in tensors.items() if name.startswith("model.vision_model.")}
    del widen
    tower = VisionTower(
        tensors,
        checkpoint.config.get("vision_config") or {},
        kernels.compute_dtype,
        lambda x, weight: kernels.linear(x, Weight.dense(weight)),
    )
    return Network(
        decoder,
        lambda pixels: tower.features(pixels["pixel_values"])[0],
        read_pixel_format(checkpoint.path, checkpoint.model_type),
    )

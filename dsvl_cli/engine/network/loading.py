"""A checkpoint on disk -> a `Network` in memory, by one of two loaders.

own            1.3b and `tiny` on a CPU, in 16 or 32 bits, in dsvl's own formats, or stored in bitsandbytes' 8 bits:
               tensors are memory-mapped, and transformers is not imported
transformers   everything else, and files in an unknown layout: its modules hold and quantize the weights, and our
               decoder calls its linear layers
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from dsvl_cli.engine.checkpoint.consistency import has_unknown_names
from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.checkpoint.layouts import EMBEDDINGS, HEAD, POOLING_HEAD
from dsvl_cli.engine.checkpoint.tensors import StoredTensors
from dsvl_cli.engine.kernels.choose import choose_kernels
from dsvl_cli.engine.kernels.kernels import Kernels
from dsvl_cli.engine.kernels.stored_weights import FLOAT_KINDS, GROUP, Kind, Weight
from dsvl_cli.engine.machine.plan import DTYPE_BYTES, Plan, check_forecast, forecast_memory
from dsvl_cli.engine.network.decoder import read_module
from dsvl_cli.engine.network.layers import DecoderConfig
from dsvl_cli.engine.network.network import Network
from dsvl_cli.engine.network.packed_weights import Packing, pack_weights
from dsvl_cli.engine.network.pixels import read_image_processor
from dsvl_cli.engine.network.soundness import check_numbers
from dsvl_cli.engine.network.vision import VisionTower, flatten_filters, list_vision_matrices
from dsvl_cli.engine.network.weights import (
    find_missing_name,
    find_obstacle,
    interleave_stored_int8,
    is_stored_int8,
    list_linears,
    read_decoder,
)
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.quantization.formats import FORMATS, Recipe, can_map, find_stored_format
from dsvl_cli.errors import DsvlError, is_out_of_memory

if TYPE_CHECKING:
    from dsvl_cli.engine.machine.detect import Machine

_KINDS = {"int8": Kind.INT8, "int4": Kind.INT4}


def load_network(
    checkpoint: Checkpoint, plan: Plan, recipe: Recipe | None, machine: Machine, listener: Listener, *, force: bool
) -> Network:
    """Load a checkpoint as planned.

    Args:
        checkpoint: the files.
        plan: device, dtype and attention.
        recipe: what to quantize while loading; not needed for a checkpoint that is stored quantized.
        machine: what it runs on.
        listener: receives the choice of kernels.
        force: load even if the estimated memory is not available.

    Raises:
        DsvlError: there is not enough memory, or the files do not match each other.
    """
    kernels, choice = choose_kernels(
        plan.device, getattr(torch, plan.dtype), machine, _list_kinds(checkpoint, plan, recipe)
    )
    listener.choice(choice)
    config = DecoderConfig.read(checkpoint.config)
    own = recipe is not None and not recipe.format.is_stored
    stored = find_stored_format(checkpoint)
    check_numbers(checkpoint)
    obstacle = None
    if plan.device == "cpu" and plan.attention == "sdpa" and can_map(checkpoint, recipe):
        with StoredTensors(checkpoint) as tensors:
            obstacle = find_obstacle(checkpoint.config, tensors)
            missing = None if obstacle else find_missing_name(checkpoint.config, tensors)
            if obstacle is None and missing is None:
                own_recipe = recipe if own else None
                packings = _plan_packing(checkpoint, config, own_recipe, kernels, tensors)
                _check_own(checkpoint, plan, packings, tensors, force=force)
                try:
                    return _load_own(checkpoint, plan, config, own_recipe, kernels, tensors, packings, listener)
                except (RuntimeError, OSError, ValueError, KeyError) as exc:
                    if is_out_of_memory(exc):
                        raise
                    raise _misfit(checkpoint) from exc
            if missing is not None:
                if not has_unknown_names(checkpoint.config, tensors):  # nor would transformers find it
                    raise DsvlError(f"{checkpoint.name} has no {missing}", "download it again")
                obstacle = f"it has no {missing}"
                listener.note(f"{checkpoint.name} has a layout that dsvl does not know: it is loaded by transformers")
    if own:
        why = obstacle or "they support only the 1.3b on a CPU"
        raise DsvlError(
            f"{checkpoint.name} cannot be loaded in the formats int8 and int4: {why}",
            "use --quantization bnb-nf4 or bnb-int8",
        )
    return _load_module(checkpoint, plan, config, recipe if stored is None else None, kernels, listener, force=force)


def _check_own(
    checkpoint: Checkpoint, plan: Plan, packings: Mapping[str, Packing], tensors: StoredTensors, *, force: bool
) -> None:
    weights_bytes = None
    if packings and not checkpoint.is_quantized:
        # A head that shares its weights with the embeddings is packed beside them.
        replaced = (packing.parameters for name, packing in packings.items() if f"{name}.weight" in tensors)
        dense = checkpoint.parameters - sum(replaced)
        weights_bytes = dense * DTYPE_BYTES[plan.dtype] + sum(packing.packed_bytes for packing in packings.values())
    check_forecast(forecast_memory(checkpoint, plan, weights_bytes), force=force)


def _load_own(
    checkpoint: Checkpoint,
    plan: Plan,
    config: DecoderConfig,
    recipe: Recipe | None,
    kernels: Kernels,
    tensors: StoredTensors,
    packings: Mapping[str, Packing],
    listener: Listener,
) -> Network:
    dtype = getattr(torch, plan.dtype)
    label = "stored" if recipe is None else recipe.format.name + ("-head" if recipe.include_head else "")
    packed = pack_weights(f"{checkpoint.fingerprint[:32]}-{label}", packings, listener) if packings else {}
    decoder = read_decoder(tensors, config, dtype, kernels, packed)
    tower = VisionTower(
        tensors,
        checkpoint.config,
        kernels.compute_dtype,
        dtype,
        lambda x, weight: kernels.linear(x, weight if isinstance(weight, Weight) else Weight.dense(weight)),
        packed,
    )
    processor = read_image_processor(checkpoint.path, checkpoint.model_type)
    return Network(decoder, lambda pixels: tower.features(pixels["pixel_values"])[0], processor)


def _plan_packing(
    checkpoint: Checkpoint, config: DecoderConfig, recipe: Recipe | None, kernels: Kernels, tensors: StoredTensors
) -> dict[str, Packing]:
    """List the weights in dsvl's own formats, by layer name: what the recipe asks for, or stored 8 bits."""
    head = HEAD.removesuffix(".weight")
    names = [*list_linears(config), head]

    def read(name: str) -> torch.Tensor:
        is_tied = name == head and HEAD not in tensors
        return flatten_filters(tensors[EMBEDDINGS if is_tied else f"{name}.weight"])

    def fits(name: str) -> bool:
        return read(name).shape[1] % GROUP == 0

    if recipe is None:
        return {
            name: Packing(Kind.INT8, read(name), partial(interleave_stored_int8, tensors, name))
            for name in names
            if is_stored_int8(tensors, name) and fits(name)
        }
    kinds = dict.fromkeys(names, _KINDS[recipe.format.name])
    # In 8 bits the head and the vision tower lose nothing that the answers show. In 16 bits the head would be half of
    # what a step in 4 bits reads, and a picture takes a large part of the time to the first word.
    if not recipe.include_head:
        kinds[head] = Kind.INT8
    kinds |= {name: Kind.INT8 for name in list_vision_matrices(checkpoint.config) if fits(name)}

    def packing(name: str, kind: Kind) -> Packing:
        weight = read(name)
        return Packing(kind, weight, lambda: kernels.quantize(weight, kind))

    return {name: packing(name, kind) for name, kind in kinds.items()}


def _list_kinds(checkpoint: Checkpoint, plan: Plan, recipe: Recipe | None) -> list[Kind]:
    """List the kinds of weights that the model will have on a CPU."""
    kinds = []
    own = recipe is not None and not recipe.format.is_stored
    if own and recipe is not None:
        kinds = [_KINDS[recipe.format.name], Kind.INT8]  # the language model and the vision tower
    elif find_stored_format(checkpoint) == "bnb-int8":
        kinds = [Kind.INT8]
    return [*dict.fromkeys(kinds), FLOAT_KINDS[getattr(torch, plan.dtype)]]


def _load_module(
    checkpoint: Checkpoint,
    plan: Plan,
    config: DecoderConfig,
    recipe: Recipe | None,
    kernels: Kernels,
    listener: Listener,
    *,
    force: bool,
) -> Network:
    """Let transformers load and, if requested, quantize the weights."""
    from dsvl_cli.engine.network.library_logging import import_backend, mute_libraries
    from dsvl_cli.engine.quantization.backends import cast_unquantized

    stored = find_stored_format(checkpoint)
    backend = FORMATS[stored].package if stored is not None else recipe.format.package if recipe is not None else None
    if backend is not None:
        import_backend(backend)
    with mute_libraries():
        if recipe is None:
            check_forecast(forecast_memory(checkpoint, plan), force=force)
            module = _read_module_files(checkpoint, plan)
        else:
            module = _quantize_module(checkpoint, plan, recipe, listener, force=force)
        if stored is not None:
            cast_unquantized(module, getattr(torch, plan.dtype))
    processor = read_image_processor(checkpoint.path, checkpoint.model_type)
    attention = plan.attention if isinstance(plan.attention, str) else plan.attention["text_config"]
    decoder = read_module(module, config, kernels, attention)
    return Network(decoder, _ModuleTower(module), processor, module)


def _quantize_module(checkpoint: Checkpoint, plan: Plan, recipe: Recipe, listener: Listener, *, force: bool) -> Any:
    from dsvl_cli.engine.network.model_class import make_skeleton
    from dsvl_cli.engine.quantization.backends import make_quantization_config
    from dsvl_cli.engine.quantization.selection import count_stored_bytes, report_selection, select_layers

    skeleton = make_skeleton(checkpoint)
    selection = select_layers(skeleton, recipe)
    report_selection(selection, recipe, listener)
    weights_bytes = count_stored_bytes(skeleton, selection, recipe, DTYPE_BYTES[plan.dtype])
    check_forecast(forecast_memory(checkpoint, plan, weights_bytes), force=force)
    return _read_module_files(checkpoint, plan, make_quantization_config(recipe, selection, plan.device))


def _read_module_files(checkpoint: Checkpoint, plan: Plan, quantization_config: Any = None) -> Any:
    from dsvl_cli.engine.network.model_class import find_model_class

    # Even None would count as a request in transformers.
    given = {} if quantization_config is None else {"quantization_config": quantization_config}
    if checkpoint.has_own_head:
        given["tie_word_embeddings"] = False
    try:
        module, found = find_model_class(checkpoint.model_type).from_pretrained(
            checkpoint.path,
            dtype=getattr(torch, plan.dtype),
            attn_implementation=plan.attention,
            device_map=plan.device_map,
            max_memory=plan.max_memory,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **given,
        )
    except Exception as exc:  # foreign files can make the libraries raise anything
        if isinstance(exc, torch.OutOfMemoryError):
            raise DsvlError(f"out of memory on {plan.device}", "use a smaller dtype or model, or --device cpu") from exc
        if is_out_of_memory(exc):
            raise
        raise _misfit(checkpoint) from exc
    # transformers only warns about missing weights, and initializes them at random.
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(POOLING_HEAD))
    if missing:
        raise DsvlError(f"{checkpoint.name} has no {missing[0]}", "download it again")
    return module.eval()


def _misfit(checkpoint: Checkpoint) -> DsvlError:
    return DsvlError(f"{checkpoint.name} cannot be loaded: its files do not match each other", "download it again")


class _ModuleTower:
    """The vision towers of transformers' module."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._weight: torch.Tensor = next(module.model.vision_model.parameters())

    def __call__(self, pixels: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Encode a picture; SAM's tower does not cast its input, so it is cast here."""
        cast = {name: values.to(self._weight.device, self._weight.dtype) for name, values in pixels.items()}
        features: torch.Tensor = self._module.model.get_image_features(**cast, return_dict=True).pooler_output[0]
        return features

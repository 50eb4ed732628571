"""Which layers of a model are quantized, and how transformers and the backends are told.

By default the linear layers of the language model, and nothing else: the vision towers, the aligner and the head stay
as they are. The backends' own defaults quantize the vision towers too, and answers get visibly worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.quantization.formats import Recipe
from dsvl_cli.engine.quantization.library_logging import spare_torchao
from dsvl_cli.errors import DsvlError

LANGUAGE_MODEL = "model.language_model"
HEAD = "lm_head"


@dataclass(frozen=True, slots=True)
class Selection:
    """The linear layers of a model, divided.

    Attributes:
        quantized: the names of the layers that are quantized, in the model's order.
        kept: patterns for the backends: parts of the model, and single layers, that stay as they are.
        misshapen: the layers among `kept` that were meant to be quantized and whose shape forbids it, each with why.
        parameters: how many numbers the quantized layers' weights hold.
    """

    quantized: tuple[str, ...]
    kept: tuple[str, ...]
    misshapen: Mapping[str, str]
    parameters: int


def find_model_class(model_type: str) -> Any:
    """Give transformers' class: a concrete one, since an Auto class would import every model that has a mapping."""
    with spare_torchao():
        if model_type == "deepseek_vl_hybrid":
            from transformers.models.deepseek_vl_hybrid.modeling_deepseek_vl_hybrid import (
                DeepseekVLHybridForConditionalGeneration,
            )

            return DeepseekVLHybridForConditionalGeneration
        from transformers.models.deepseek_vl.modeling_deepseek_vl import DeepseekVLForConditionalGeneration

        return DeepseekVLForConditionalGeneration


def make_skeleton(checkpoint: Checkpoint) -> Any:
    """Build a checkpoint's module without any memory for its weights (on torch's device `meta`)."""
    model_class = find_model_class(checkpoint.model_type)
    config = model_class.config_class.from_pretrained(checkpoint.path, local_files_only=True)
    if checkpoint.has_own_head:
        config.tie_word_embeddings = False
    with torch.device("meta"):
        return model_class(config)


def select_layers(skeleton: nn.Module, recipe: Recipe) -> Selection:
    """Divide the linear layers of a module.

    Raises:
        DsvlError: the head is to be quantized, and it shares its weights with the embeddings.
    """
    if recipe.include_head and _has_tied_head(skeleton):
        raise DsvlError(
            "the head shares its weights with the embeddings and cannot be quantized", "drop --include-head"
        )
    kept = [] if recipe.include_head else [HEAD]
    if not recipe.include_vision:
        parts = (f"model.{name}" for name, _ in skeleton.get_submodule("model").named_children())
        kept += [part for part in parts if part != LANGUAGE_MODEL]
    quantized: list[str] = []
    misshapen: dict[str, str] = {}
    parameters = 0
    for name, layer in skeleton.named_modules():
        if not isinstance(layer, nn.Linear) or any(name == part or name.startswith(f"{part}.") for part in kept):
            continue
        obstacle = _find_obstacle(layer, recipe)
        if obstacle is None:
            quantized.append(name)
            parameters += layer.weight.numel()
        else:
            misshapen[name] = obstacle
    return Selection(tuple(quantized), (*kept, *misshapen), misshapen, parameters)


def shorten_name(name: str) -> str:
    """Name a layer as people know it: without what all names begin and most end with."""
    return name.removeprefix(f"{LANGUAGE_MODEL}.").removeprefix("model.").removesuffix(".weight")


def _find_obstacle(layer: nn.Linear, recipe: Recipe) -> str | None:
    if type(layer) is not nn.Linear:
        return f"it is a {type(layer).__name__}"
    if layer.in_features % recipe.in_multiple:
        return f"its {layer.in_features} in-features are no multiple of {recipe.in_multiple}"
    if layer.out_features % recipe.format.out_multiple:
        return f"its {layer.out_features} out-features are no multiple of {recipe.format.out_multiple}"
    return None


def _has_tied_head(skeleton: nn.Module) -> bool:
    return bool(getattr(skeleton, "all_tied_weights_keys", {}))


def report_selection(selection: Selection, recipe: Recipe, listener: Listener) -> None:
    """Tell which layers stay as they are because of their shape.

    Raises:
        DsvlError: nothing is left to quantize.
    """
    misshapen = selection.misshapen
    if not selection.quantized:
        why = next(iter(misshapen.values()), "there is none")
        raise DsvlError(f"no layer can be stored as {recipe.format.name}: {why}", "take another format")
    if misshapen:
        name, why = next(iter(misshapen.items()))
        total = len(misshapen) + len(selection.quantized)
        listener.note(
            f"{len(misshapen)} of {total} layers cannot be stored as {recipe.format.name} and stay: {name}, {why}"
        )


def make_quantization_config(recipe: Recipe, selection: Selection, device: str) -> Any:
    """Write recipe and selection as `from_pretrained` takes them: a `BitsAndBytesConfig` or a `TorchAoConfig`.

    A list of names given to the backends replaces their default one, which holds the head: so it is in `kept`.
    """
    from transformers.utils.quantization_config import BitsAndBytesConfig, TorchAoConfig

    kept = list(selection.kept)
    name = recipe.format.name
    if recipe.format.package == "torchao":
        return TorchAoConfig(make_torchao_config(recipe, device), modules_to_not_convert=kept)
    if name == "bnb-int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=name.removeprefix("bnb-"),
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=kept,
    )


def make_torchao_config(recipe: Recipe, device: str) -> Any:
    """Write a recipe as torchao takes it. Its settings for the whole process stay as they are."""
    from torchao.quantization import (
        Int4WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
    )

    if recipe.format.name == "torchao-int8":
        return Int8WeightOnlyConfig(set_inductor_config=False)
    if recipe.format.name == "torchao-int8-dynamic":
        return Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    # The default packing needs another package.
    packing = "plain_int32" if device.startswith("xpu") else "tile_packed_to_4d"
    return Int4WeightOnlyConfig(group_size=recipe.group_size, int4_packing_format=packing, set_inductor_config=False)


def cast_unquantized(module: nn.Module, dtype: torch.dtype) -> None:
    """Bring the parameters of a quantized module that are not quantized to the dtype that it computes in.

    transformers leaves many of them as they were stored when it loads a checkpoint that is quantized already.
    """
    for parameter in module.parameters():
        if type(parameter.data) is torch.Tensor and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def count_stored_bytes(skeleton: nn.Module, selection: Selection, recipe: Recipe, width: int) -> int:
    """Count the bytes that a module's weights take once they are quantized.

    Args:
        skeleton: the module before it is quantized.
        selection: what is quantized.
        recipe: into what.
        width: bytes of a number that is not quantized.
    """
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    others = parameters - selection.parameters
    return others * width + int(selection.parameters * recipe.bits_stored / 8)


def describe_versions() -> dict[str, str]:
    """List the versions of the packages that quantize."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("torch", "transformers", "bitsandbytes", "torchao", "safetensors"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions

"""The quantization backends behind transformers: their configurations, versions, and what they did to a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dsvl_cli.engine.quantization.formats import Recipe
from dsvl_cli.engine.quantization.selection import Selection


def make_quantization_config(recipe: Recipe, selection: Selection, device: str) -> Any:
    """Return the configuration for `from_pretrained`: a `BitsAndBytesConfig` or a `TorchAoConfig`.

    The list of kept modules replaces the backends' default list, which contains the head; `kept` names the head too.
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
    """Return torchao's configuration of a recipe, one that leaves its process-wide settings unchanged."""
    from torchao.quantization import (
        Int4WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
    )

    if recipe.format.name == "torchao-int8":
        return Int8WeightOnlyConfig(set_inductor_config=False)
    if recipe.format.name == "torchao-int8-dynamic":
        return Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    # torchao's default packing needs another package.
    packing = "plain_int32" if device.startswith("xpu") else "tile_packed_to_4d"
    return Int4WeightOnlyConfig(group_size=recipe.group_size, int4_packing_format=packing, set_inductor_config=False)


def cast_unquantized(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the parameters of a module that are not quantized to the dtype of computation.

    When transformers loads a quantized checkpoint, it leaves many of them in their stored dtype.
    """
    for parameter in module.parameters():
        if type(parameter.data) is torch.Tensor and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def describe_versions() -> dict[str, str]:
    """Return the versions of the packages that take part in quantization."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("torch", "transformers", "bitsandbytes", "torchao", "safetensors"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions

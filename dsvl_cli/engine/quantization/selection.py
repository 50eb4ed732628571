"""Which layers of a model are quantized.

By default the linear layers of the language model only: the vision towers, the aligner and the head keep their dtype.
The backends' own defaults quantize the vision towers too, and answers get visibly worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.quantization.formats import Recipe
from dsvl_cli.errors import DsvlError

LANGUAGE_MODEL = "model.language_model"
HEAD = "lm_head"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which linear layers of a model are quantized and which are kept.

    Attributes:
        quantized: the names of the quantized layers, in the model's order.
        kept: patterns for the backends: parts of the model, and single layers, that are not quantized.
        misshapen: the layers in `kept` that were selected but have an unsupported shape, each with the reason.
        parameters: the number of weights in the quantized layers.
    """

    quantized: tuple[str, ...]
    kept: tuple[str, ...]
    misshapen: Mapping[str, str]
    parameters: int


def select_layers(skeleton: nn.Module, recipe: Recipe) -> Selection:
    """Select the linear layers of a module to quantize.

    Raises:
        DsvlError: the head is requested, but it shares its weights with the embeddings.
    """
    if recipe.include_head and _has_tied_head(skeleton):
        raise DsvlError(
            "the head shares its weights with the embeddings and cannot be quantized", "omit --include-head"
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
    """Shorten a layer's name for display: without the common prefix and `.weight`."""
    return name.removeprefix(f"{LANGUAGE_MODEL}.").removeprefix("model.").removesuffix(".weight")


def _find_obstacle(layer: nn.Linear, recipe: Recipe) -> str | None:
    if type(layer) is not nn.Linear:
        return f"it is a {type(layer).__name__}"
    if layer.in_features % recipe.in_multiple:
        return f"its {layer.in_features} in-features are not a multiple of {recipe.in_multiple}"
    if layer.out_features % recipe.format.out_multiple:
        return f"its {layer.out_features} out-features are not a multiple of {recipe.format.out_multiple}"
    return None


def _has_tied_head(skeleton: nn.Module) -> bool:
    return bool(getattr(skeleton, "all_tied_weights_keys", {}))


def report_selection(selection: Selection, recipe: Recipe, listener: Listener) -> None:
    """Report the layers that are not quantized because of their shape.

    Raises:
        DsvlError: there is nothing to quantize.
    """
    misshapen = selection.misshapen
    if not selection.quantized:
        why = next(iter(misshapen.values()), "the model has no linear layers")
        raise DsvlError(f"no layer can be quantized to {recipe.format.name}: {why}", "use another format")
    if misshapen:
        name, why = next(iter(misshapen.items()))
        total = len(misshapen) + len(selection.quantized)
        listener.note(
            f"{len(misshapen)} of {total} layers cannot be quantized to {recipe.format.name}, such as {name}: {why}"
        )


def count_stored_bytes(skeleton: nn.Module, selection: Selection, recipe: Recipe, width: int) -> int:
    """Estimate the bytes of a module's weights after quantization.

    Args:
        skeleton: the module before quantization.
        selection: the layers to quantize.
        recipe: the format.
        width: bytes per parameter that is not quantized.
    """
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    others = parameters - selection.parameters
    return others * width + int(selection.parameters * recipe.bits_stored / 8)

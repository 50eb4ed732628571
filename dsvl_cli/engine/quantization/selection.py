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

from __future__ import annotations

from typing import Any

import pytest
import torch

from dsvl_cli.engine.quantization.formats import FORMATS, STORED_FORMATS, Recipe, Verdict, find_cell
from dsvl_cli.engine.quantization.selection import count_stored_bytes, report_selection, select_layers
from dsvl_cli.errors import DsvlError
from tests.listeners import StrictEar

ON_CPU = sorted(name for name in STORED_FORMATS if find_cell(name, "cpu", "bfloat16").verdict is Verdict.WORKS)
PROJECTIONS = 7  # linear layers of one layer of Llama


@pytest.mark.parametrize("model", ["tiny", "hybrid"])
@pytest.mark.parametrize("name", FORMATS)
def test_only_the_language_models_layers_are_chosen(skeletons: dict[str, Any], model: str, name: str) -> None:
    skeleton = skeletons[model]
    selection = select_layers(skeleton, Recipe(FORMATS[name], group_size=32))
    assert all(layer.startswith("model.language_model.layers.") for layer in selection.quantized)
    assert len(selection.quantized) == PROJECTIONS * skeleton.config.text_config.num_hidden_layers
    assert selection.misshapen == {}


def test_a_tied_head_is_refused(skeletons: dict[str, Any]) -> None:
    with pytest.raises(DsvlError, match="head"):
        select_layers(skeletons["tiny"], Recipe(FORMATS["bnb-nf4"], include_head=True))


def test_an_untied_head_is_taken_when_asked_for(skeletons: dict[str, Any]) -> None:
    model = torch.nn.Module()
    model.model = torch.nn.Module()
    model.model.language_model = torch.nn.Linear(64, 64)
    model.lm_head = torch.nn.Linear(64, 64)
    entry = FORMATS["bnb-nf4"]
    assert select_layers(model, Recipe(entry)).quantized == ("model.language_model",)
    assert select_layers(model, Recipe(entry, include_head=True)).quantized == ("model.language_model", "lm_head")


@pytest.mark.parametrize(
    ("name", "shape", "word"), [("bnb-nf4", (96, 64), "in-features"), ("bnb-fp4", (64, 48), "out-features")]
)
def test_a_layer_of_the_wrong_shape_is_kept_and_reported(name: str, shape: tuple[int, int], word: str) -> None:
    model = torch.nn.Module()
    model.model = torch.nn.Module()
    model.model.language_model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(*shape))
    recipe = Recipe(FORMATS[name])
    selection = select_layers(model, recipe)
    odd = "model.language_model.1"
    assert selection.quantized == ("model.language_model.0",)
    assert word in selection.misshapen[odd]
    assert odd in selection.kept
    ear = StrictEar()
    report_selection(selection, recipe, ear)
    assert len(ear.notes) == 1
    assert odd in ear.notes[0]
    del model.model.language_model[0]
    with pytest.raises(DsvlError, match="no layer"):
        report_selection(select_layers(model, recipe), recipe, ear)


def test_the_bytes_are_counted_as_they_are_written(skeletons: dict[str, Any]) -> None:
    skeleton = skeletons["tiny"]
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    for name in ON_CPU:
        recipe = Recipe(FORMATS[name])
        selection = select_layers(skeleton, recipe)
        counted = count_stored_bytes(skeleton, selection, recipe, width=2)
        others = 2 * (parameters - selection.parameters)
        assert others + selection.parameters * recipe.format.bits / 8 < counted < others + selection.parameters * 1.05

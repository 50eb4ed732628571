from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.engine.model import load_model
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.engine.quantization.formats import FORMATS, STORED_FORMATS, Recipe, Verdict, find_cell
from dsvl_cli.engine.quantization.selection import select_layers
from tests.engine.quantization.quantized_layers import find_quantized_layers

ON_CPU = sorted(name for name in STORED_FORMATS if find_cell(name, "cpu", "bfloat16").verdict is Verdict.WORKS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
@pytest.mark.parametrize("model", ["tiny", "hybrid"])
@pytest.mark.parametrize("name", ON_CPU)
def test_the_backend_quantizes_exactly_what_was_chosen(
    skeletons: dict[str, Any], hybrid_folder: Path, model: str, name: Any, dtype: Any
) -> None:
    chosen = select_layers(skeletons[model], Recipe(FORMATS[name]))
    path = "tiny" if model == "tiny" else str(hybrid_folder)
    loaded = load_model(LoadOptions(model=path, quantization=name, dtype=dtype, device="cpu"))
    assert find_quantized_layers(loaded.network.module) == set(chosen.quantized)


@pytest.mark.parametrize("name", ["bnb-nf4", "bnb-int8", "torchao-int8"])
def test_the_vision_towers_are_quantized_when_asked_for(
    skeletons: dict[str, Any], hybrid_folder: Path, name: Any
) -> None:
    chosen = select_layers(skeletons["hybrid"], Recipe(FORMATS[name], include_vision=True))
    options = LoadOptions(model=str(hybrid_folder), quantization=name, include_vision=True, device="cpu")
    loaded = load_model(options)
    assert find_quantized_layers(loaded.network.module) == set(chosen.quantized)
    parts = {layer.split(".")[1] for layer in chosen.quantized}
    assert {"vision_model", "high_res_vision_model", "aligner", "language_model"} <= parts

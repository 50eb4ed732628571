"""Weights that are no numbers, or fewer than announced, are refused before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, check_folder
from dsvl_cli.engine.network.soundness import check_numbers, is_finite
from dsvl_cli.engine.storage import contents
from dsvl_cli.errors import DsvlError
from tests.engine.checkpoint.hostile import list_variants

VARIANTS = {variant.name: variant for variant in list_variants()}


@pytest.mark.fault("weights that are not numbers")
@pytest.mark.parametrize(
    "name",
    [
        "model.language_model.layers.3.self_attn.v_proj.weight has one NaN number",
        "model.aligner.linear2.weight has one infinite number",
        "model.language_model.embed_tokens.weight has one NaN number",
        "8-bit scales: NaN",
    ],
)
def test_weights_that_are_no_numbers_are_refused(name: str, tmp_path: Path) -> None:
    checkpoint = check_folder("mine", VARIANTS[name].make(tmp_path / "variant"))
    with pytest.raises(DsvlError, match="values that are not numbers"):
        check_numbers(checkpoint)


@pytest.mark.fault("hostile configuration")
def test_a_model_that_says_to_be_larger_than_its_file_is_refused() -> None:
    checkpoint = check_folder("mine", EMBEDDED_FOLDER)
    config = {**checkpoint.config, "text_config": {**checkpoint.config["text_config"], "num_hidden_layers": 900}}
    with pytest.raises(DsvlError, match=r"but config\.json describes"):
        check_numbers(replace(checkpoint, config=config))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_of_many_is_enough(dtype: torch.dtype) -> None:
    values = torch.full((70, 1000), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(values)
    for wrong in (float("nan"), float("inf"), float("-inf")):
        for place in (0, 33, 69):
            values[place, 7 * place] = wrong
            assert not is_finite(values)
            values[place, 7 * place] = 0.0


def test_large_weights_are_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contents, "SMALL", 1000)
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path))
    checkpoint = check_folder("mine", EMBEDDED_FOLDER)
    check_numbers(checkpoint)
    monkeypatch.setattr("dsvl_cli.engine.network.soundness.is_finite", lambda _: pytest.fail("read again"))
    check_numbers(checkpoint)

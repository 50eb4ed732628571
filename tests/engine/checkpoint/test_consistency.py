"""Numbers of a configuration are in their range, and tensors are what it says."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.checkpoint.consistency import check_config, check_tensors, count_parameters
from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, check_folder, read_header
from dsvl_cli.errors import DsvlError
from tests.engine.checkpoint.hostile import Variant, list_variants

CONFIG: dict[str, Any] = json.loads((EMBEDDED_FOLDER / "config.json").read_text("utf-8"))
VARIANTS = {variant.name: variant for variant in list_variants()}
# Not that a checkpoint has them: that they have nothing else.
_HUGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def refuse(variant: Variant, folder: Any) -> str:
    with pytest.raises(DsvlError) as caught:
        check_folder("mine", variant.make(folder / "variant"))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
    return caught.value.message


@pytest.mark.fault("hostile configuration")
@pytest.mark.parametrize(
    "name",
    [
        "text_config.num_hidden_layers is 1099511627776", "text_config.hidden_size is '7'",
        "text_config.num_attention_heads is [4]", "text_config.rms_norm_eps is nan", "vision_config.patch_size is 0",
        "text_config.rope_parameters is [1]", "text_config.rope_parameters is {'rope_theta': 'x'}",
        "image_token_id is -1", "image_token_id is True", "text_config.hidden_act is ['silu']", "text_config is 5",
        "2 heads, 4 key-value heads", "quantization_config is 'x'", "vision_config.num_attention_heads is 5",
    ],
)  # fmt: skip
def test_a_number_that_is_none_is_refused(name: str, tmp_path: Any) -> None:
    assert "the config.json of mine is damaged" in refuse(VARIANTS[name], tmp_path)


@pytest.mark.fault("hostile weights")
@pytest.mark.parametrize(
    "name",
    [
        "the head is narrower", "language_model.norm is shorter", "language_model.embed_tokens is longer",
        "vision_model.encoder.layers.3.self_attn.q_proj.bias is flat", "aligner.linear1.bias is of one number",
        "vision_model.embeddings.position_embedding is a number", "8-bit scales: short", "8-bit scales: missing",
        "model.language_model.norm.weight has dtype I8", "8-bit scales: integers",
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_refused(name: str, tmp_path: Any) -> None:
    assert "mine is damaged" in refuse(VARIANTS[name], tmp_path)


@pytest.mark.fault("hostile configuration")
@given(st.sampled_from(sorted({*CONFIG["text_config"], *CONFIG["vision_config"]})), _HUGE, st.booleans())
def test_any_value_is_checked_without_a_bug(name: str, value: object, in_text: bool) -> None:
    config = deepcopy(CONFIG)
    config["text_config" if in_text else "vision_config"][name] = value
    message = ""
    try:
        check_config("mine", config)
        check_tensors("mine", config, [])
    except DsvlError as exc:
        message = exc.message
    assert "\n" not in message
    assert len(message) < 400
    assert message or count_parameters(config) > 0


def test_the_embedded_model_has_as_many_parameters_as_it_says() -> None:
    shapes = read_header(EMBEDDED_FOLDER / "model.safetensors")
    stored = sum(math.prod(shape) for shape in shapes.values())
    assert count_parameters(CONFIG) == stored

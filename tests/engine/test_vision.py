"""SigLIP and the aligner over plain tensors against transformers' modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import DeepseekVLConfig, DeepseekVLModel

from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.vision import VisionTower
from dsvl_cli.errors import DsvlError
from tests.pictures import draw_picture

TEXT = {
    "model_type": "llama", "vocab_size": 8, "hidden_size": 40, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1,
}  # fmt: skip


def random_model(**vision: Any) -> Any:
    """A small one whose every weight and bias matters; 50 px hold three patches of 16 and a rest."""
    settings = {
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 50,
        "patch_size": 16, "vision_use_head": False, **vision,
    }  # fmt: skip
    torch.manual_seed(0)
    model = DeepseekVLModel(DeepseekVLConfig(text_config=TEXT, vision_config=settings))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def tower_of(model: Any, prefix: str = "model.") -> VisionTower:
    tensors = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    return VisionTower(tensors, model.config.to_dict())


def by_transformers(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        features: torch.Tensor = model.get_image_features(pixels, return_dict=True).pooler_output
    return features


@pytest.mark.parametrize("activation", ["gelu_pytorch_tanh", "gelu"])
@pytest.mark.parametrize("pictures", [1, 3])
def test_random_towers_agree(pictures: int, activation: str) -> None:
    model = random_model(hidden_act=activation)
    pixels = torch.randn(pictures, 3, 50, 50)
    features = tower_of(model).features(pixels)
    expected = by_transformers(model, pixels)
    assert features.shape == (pictures, 9, 40)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_the_embedded_model_sees_the_same(tiny: VisionLanguageModel) -> None:
    tower = tower_of(tiny.network.module, prefix="")
    pixels = torch.cat([tiny.network.pixels(draw_picture(seed))["pixel_values"] for seed in range(4)])
    features = tower.features(pixels)
    expected = by_transformers(tiny.network.module.model, pixels)
    assert features.shape == (4, tiny.image_tokens(), 256)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_as_near_to_float32_as_with_transformers() -> None:
    model = random_model(num_hidden_layers=6)
    pixels = torch.randn(2, 3, 50, 50)
    exact = by_transformers(model, pixels)
    model = model.to(torch.bfloat16)
    theirs, ours = by_transformers(model, pixels.bfloat16()), tower_of(model).features(pixels)
    assert ours.dtype == torch.bfloat16

    def error(features: torch.Tensor) -> float:
        return float((features.float() - exact).norm() / exact.norm())

    assert error(ours) < 1.2 * error(theirs)
    assert error(theirs) < 0.05


def test_every_linear_layer_can_be_replaced() -> None:
    model = random_model()
    tower = tower_of(model)
    pixels = torch.randn(1, 3, 50, 50)
    expected = tower.features(pixels)
    shapes = []

    def noting(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        shapes.append(tuple(weight.shape))
        return functional.linear(inputs, weight, bias)

    replaced: Callable[..., torch.Tensor] = noting
    tower.linear = replaced
    assert torch.equal(tower.features(pixels), expected)
    assert shapes == [(48, 768), *[(144, 48), (48, 48), (80, 48), (48, 80)] * 3, (40, 48), (40, 40)]


def test_what_does_not_fit_is_refused() -> None:
    model = random_model()
    with pytest.raises(ValueError, match="64, 50"):
        tower_of(model).features(torch.zeros(1, 3, 64, 50))
    with pytest.raises(DsvlError, match="quick_gelu"):
        tower_of(random_model(hidden_act="quick_gelu"))
    with pytest.raises(KeyError, match=r"vision_model\.embeddings"):
        VisionTower({}, model.config.to_dict())

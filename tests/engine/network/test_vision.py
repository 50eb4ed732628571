"""SigLIP and the aligner over plain tensors against transformers' modules."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch.nn import functional
from transformers import DeepseekVLConfig, DeepseekVLModel

from dsvl_cli.engine.kernels.kernels import PlainKernels
from dsvl_cli.engine.kernels.stored_weights import Kind, Weight, quantize
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.network.vision import VisionTower, flatten_filters, list_vision_matrices
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.errors import DsvlError
from tests.checkpoints import load_reference
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


def tower_of(model: Any, prefix: str = "model.", dtype: torch.dtype | None = None) -> VisionTower:
    tensors = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    dtype = dtype or torch.float32
    return VisionTower(tensors, model.config.to_dict(), dtype, dtype)


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
    reference = load_reference(tiny)
    tower = tower_of(reference, prefix="")
    pixels = torch.cat([tiny.network.pixels(draw_picture(seed))["pixel_values"] for seed in range(4)])
    features = tower.features(pixels)
    expected = by_transformers(reference.model, pixels)
    assert features.shape == (4, tiny.image_tokens(), 256)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_as_near_to_float32_as_with_transformers() -> None:
    model = random_model(num_hidden_layers=6)
    pixels = torch.randn(2, 3, 50, 50)
    exact = by_transformers(model, pixels)
    model = model.to(torch.bfloat16)
    theirs, ours = by_transformers(model, pixels.bfloat16()), tower_of(model, dtype=torch.bfloat16).features(pixels)
    assert ours.dtype == torch.bfloat16

    def error(features: torch.Tensor) -> float:
        return float((features.float() - exact).norm() / exact.norm())

    assert error(ours) < 1.2 * error(theirs)
    assert error(theirs) < 0.05


def test_weights_stay_in_16_bits_and_every_product_goes_through_one_function() -> None:
    model = random_model().to(torch.bfloat16)
    pixels = torch.randn(1, 3, 50, 50)
    expected = by_transformers(model.float(), pixels)
    tensors = {f"model.{name}": tensor.bfloat16() for name, tensor in model.state_dict().items()}
    products = 0

    def multiply(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        nonlocal products
        products += 1
        assert (inputs.dtype, weight.dtype) == (torch.float32, torch.bfloat16)
        return functional.linear(inputs, weight.float())

    tower = VisionTower(tensors, model.config.to_dict(), torch.float32, torch.bfloat16, multiply)
    torch.testing.assert_close(tower.features(pixels), expected, rtol=1e-4, atol=1e-4)
    assert products == 1 + 6 * 3 + 2


def test_weights_are_of_the_dtype_that_is_asked_for_however_they_are_stored() -> None:
    model = random_model()
    tensors = {f"model.{name}": tensor.bfloat16() for name, tensor in model.state_dict().items()}
    seen = set()

    def multiply(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen.add(weight.dtype)
        return functional.linear(inputs, weight)

    tower = VisionTower(tensors, model.config.to_dict(), torch.float32, torch.float32, multiply)
    tower.features(torch.randn(1, 3, 50, 50))
    assert seen == {torch.float32}


def test_a_pooling_head_is_passed_over() -> None:
    model = random_model(vision_use_head=True)
    pixels = torch.randn(1, 3, 50, 50)
    assert any(".head." in name for name in model.state_dict())
    torch.testing.assert_close(tower_of(model).features(pixels), by_transformers(model, pixels), rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    model = random_model()
    with pytest.raises(ValueError, match="64, 50"):
        tower_of(model).features(torch.zeros(1, 3, 64, 50))
    with pytest.raises(DsvlError, match="quick_gelu"):
        tower_of(random_model(hidden_act="quick_gelu"))
    with pytest.raises(KeyError, match=r"vision_model\.embeddings"):
        VisionTower({}, model.config.to_dict())


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_in_our_formats_the_tower_is_packed_and_its_features_stay(
    tiny: VisionLanguageModel, name: Literal["int8", "int4"]
) -> None:
    packed = load_model(LoadOptions(model="tiny", dtype="float32", device="cpu", quantization=name))
    for seed in range(3):
        picture = draw_picture(seed)
        wanted, found = (model.network.features([picture]) for model in (tiny, packed))
        assert not torch.equal(wanted, found)
        assert float((wanted - found).norm() / wanted.norm()) < 0.02


def test_matrices_that_are_packed_are_not_read_as_well() -> None:
    """Converting them would take longer than loading the rest."""
    model = random_model(hidden_size=64, num_attention_heads=4, intermediate_size=128)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    matrices = {name: flatten_filters(tensors[f"{name}.weight"]) for name in list_vision_matrices(config)}
    names = [name for name, matrix in matrices.items() if matrix.shape[1] % 64 == 0]
    assert len(names) > 18
    packed = {name: quantize(flatten_filters(tensors.pop(f"{name}.weight")), Kind.INT8) for name in names}
    kernels = PlainKernels()
    tower = VisionTower(
        tensors,
        config,
        multiply=lambda x, weight: kernels.linear(x, weight if isinstance(weight, Weight) else Weight.dense(weight)),
        packed=packed,
    )
    pixels = torch.randn(1, 3, 50, 50)
    wanted = by_transformers(model, pixels)
    assert float((tower.features(pixels) - wanted).norm() / wanted.norm()) < 0.05

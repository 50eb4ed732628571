"""The vision encoder of DeepSeek-VL: SigLIP's vision tower and the aligner, on a checkpoint's tensors.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023, as in transformers' `SiglipVisionModel`; in float32
the features are equal up to rounding (tests/engine/network/test_vision.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from dsvl_cli.engine.checkpoint.layouts import vision_settings
from dsvl_cli.engine.kernels.stored_weights import Weight
from dsvl_cli.errors import DsvlError

_TOWER, _ALIGNER = "model.vision_model.", "model.aligner."
_LAYER = (
    "layer_norm1", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "layer_norm2",
    "mlp.fc1", "mlp.fc2",
)  # fmt: skip
_ACTIVATIONS = {"gelu": "none", "gelu_pytorch_tanh": "tanh"}  # torch's name of the approximation

# The second is a matrix `(out, in)`: a tensor, or a packed weight.
Multiply = Callable[[torch.Tensor, Any], torch.Tensor]


class VisionTower:
    """Pixels -> features that the language model reads.

    Args:
        tensors: the checkpoint's, by name.
        config: `config.json`.
        dtype: of activations, biases and norms.
        weights_dtype: of matrices; those stored in it stay memory-mapped.
        multiply: `(rows, in) x (out, in) -> (rows, out)`; torch's by default, which takes
            tensors only.
        packed: matrices in 8 bits that replace the checkpoint's, by name without `.weight`.

    Raises:
        DsvlError: the configuration is not SigLIP as DeepSeek-VL uses it.
        KeyError: a tensor is missing.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        config: Mapping[str, Any],
        dtype: torch.dtype = torch.float32,
        weights_dtype: torch.dtype = torch.float32,
        multiply: Multiply = functional.linear,
        packed: Mapping[str, Weight] | None = None,
    ) -> None:
        settings = vision_settings(config)
        obstacle = find_vision_obstacle(config)
        if obstacle is not None:
            raise DsvlError(f"the vision tower is not supported: {obstacle}")
        self._approximation = _ACTIVATIONS[settings["hidden_act"]]
        self._side: int = settings["image_size"]
        self._heads: int = settings["num_attention_heads"]
        self._patch: int = settings["patch_size"]
        self._epsilon: float = settings["layer_norm_eps"]
        self._layers: int = settings["num_hidden_layers"]
        self._multiply = multiply
        self._dtype = dtype
        matrices = set(list_vision_matrices(config))
        self._tensors = {
            name: tensors[name].to(dtype)
            for name in list_vision_tensors(config)
            if name.removesuffix(".weight") not in matrices
        }
        packed = packed or {}
        self._matrices = {
            name: packed[name] if name in packed else flatten_filters(tensors[f"{name}.weight"]).to(weights_dtype)
            for name in matrices
        }

    @torch.inference_mode()
    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode pictures.

        Args:
            pixels: `(pictures, 3, side, side)`.

        Returns:
            `(pictures, patches, hidden of the language model)`.

        Raises:
            ValueError: the pictures do not have the tower's size.
        """
        if pixels.shape[-2:] != (self._side, self._side):
            raise ValueError(f"pictures are {tuple(pixels.shape[-2:])} pixels, not {self._side} x {self._side}")
        pictures = len(pixels)
        x = self._embed(pixels.to(self._dtype))
        patches = len(x) // pictures
        for index in range(self._layers):
            layer = f"{_TOWER}encoder.layers.{index}."
            x = x + self._attend(self._normalized(x, f"{layer}layer_norm1"), f"{layer}self_attn.", pictures, patches)
            inner = self._linear(self._normalized(x, f"{layer}layer_norm2"), f"{layer}mlp.fc1")
            x = x + self._linear(functional.gelu(inner, approximate=self._approximation), f"{layer}mlp.fc2")
        x = self._normalized(x, f"{_TOWER}post_layernorm")
        x = self._linear(functional.gelu(self._linear(x, f"{_ALIGNER}linear1")), f"{_ALIGNER}linear2")
        return x.view(pictures, patches, -1)

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return `(pictures * patches, hidden)`; each patch is one row of the product with the filters."""
        pictures, channels, side, _ = pixels.shape
        grid = side // self._patch
        pixels = pixels[..., : grid * self._patch, : grid * self._patch]
        rows = pixels.reshape(pictures, channels, grid, self._patch, grid, self._patch).permute(0, 2, 4, 1, 3, 5)
        x = self._linear(rows.reshape(pictures * grid * grid, -1), f"{_TOWER}embeddings.patch_embedding")
        return x + self._tensors[f"{_TOWER}embeddings.position_embedding.weight"].repeat(pictures, 1)

    def _attend(self, x: torch.Tensor, name: str, pictures: int, patches: int) -> torch.Tensor:
        query, key, value = (
            self._linear(x, f"{name}{part}_proj").view(pictures, patches, self._heads, -1).transpose(1, 2)
            for part in "qkv"
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self._linear(attended.transpose(1, 2).reshape(pictures * patches, -1), f"{name}out_proj")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self._multiply(x, self._matrices[name]).add_(self._tensors[f"{name}.bias"])

    def _normalized(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias, self._epsilon)


def flatten_filters(weight: torch.Tensor) -> torch.Tensor:
    """Return a matrix `(out, in)`; the patch embedding's filters `(out, channels, side, side)` become rows."""
    return weight.reshape(len(weight), -1)


def list_vision_matrices(config: Mapping[str, Any]) -> list[str]:
    """List the linear layers of the tower and the aligner, and the patch embedding, without `.weight`."""
    modules = [f"{_TOWER}embeddings.patch_embedding"]
    for index in range(vision_settings(config)["num_hidden_layers"]):
        modules += [f"{_TOWER}encoder.layers.{index}.{part}" for part in _LAYER if "norm" not in part]
    return [*modules, f"{_ALIGNER}linear1", f"{_ALIGNER}linear2"]


def list_vision_tensors(config: Mapping[str, Any]) -> list[str]:
    """List the tensors of the tower and the aligner; a pooling head, which some files have, is unused."""
    modules = [f"{_TOWER}embeddings.patch_embedding"]
    for index in range(vision_settings(config)["num_hidden_layers"]):
        layer = f"{_TOWER}encoder.layers.{index}."
        modules += [f"{layer}{part}" for part in _LAYER]
    modules += [f"{_TOWER}post_layernorm", f"{_ALIGNER}linear1", f"{_ALIGNER}linear2"]
    names = [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    return [*names, f"{_TOWER}embeddings.position_embedding.weight"]


def find_vision_obstacle(config: Mapping[str, Any]) -> str | None:
    """Return what a configuration needs of the tower that is not supported here, or None."""
    activation = vision_settings(config)["hidden_act"]
    return None if activation in _ACTIVATIONS else f"its activations are {activation}"

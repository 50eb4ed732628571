"""SigLIP's vision tower and the aligner of DeepSeek-VL, over plain tensors: pixels -> features for the decoder.

The same computation as transformers' `DeepseekVLModel.get_image_features`, without its import, with one product for
queries, keys and values, and every linear layer through one function that a backend can replace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from dsvl_cli.errors import DsvlError

# input (..., in), weight (out, in), bias (out,) or None -> (..., out)
Linear = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]

# As `SiglipVisionConfig` and `DeepseekVLConfig` have them where config.json says nothing.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_ACTIVATIONS = {"gelu": "none", "gelu_pytorch_tanh": "tanh"}  # to what torch calls the approximation


@dataclass(frozen=True, slots=True)
class _Affine:
    """The weight and the bias of a linear layer or of a layer norm."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class _Layer:
    norm1: _Affine
    qkv: _Affine
    out: _Affine
    norm2: _Affine
    fc1: _Affine
    fc2: _Affine


class VisionTower:
    """Turns pictures into features that stand in for the embeddings of image tokens.

    Attributes:
        linear: computes every linear layer.
        weights: of the linear layers, by name; a backend that packs weights finds here what to pack.

    Args:
        tensors: of the checkpoint, by the names that they have there, all in one dtype and on one device. Queries',
            keys' and values' are copied into one; the rest is used as it is.
        config: `config.json`.

    Raises:
        KeyError: a tensor is missing.
        DsvlError: the configuration asks for something else than SigLIP as DeepSeek-VL uses it.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        vision = {**_DEFAULTS, **config["vision_config"]}
        if vision["hidden_act"] not in _ACTIVATIONS:
            raise DsvlError(f"a vision tower with {vision['hidden_act']} is not supported")
        self.linear: Linear = functional.linear
        self._heads: int = vision["num_attention_heads"]
        self._patch: int = vision["patch_size"]
        self._side: int = vision["image_size"]
        self._epsilon: float = vision["layer_norm_eps"]
        self._approximation = _ACTIVATIONS[vision["hidden_act"]]
        tower = "model.vision_model"
        patches = _affine(tensors, f"{tower}.embeddings.patch_embedding")
        self._patches = _Affine(patches.weight.flatten(1), patches.bias)
        self._positions = tensors[f"{tower}.embeddings.position_embedding.weight"]
        self._layers = [_layer(tensors, f"{tower}.encoder.layers.{i}") for i in range(vision["num_hidden_layers"])]
        self._norm = _affine(tensors, f"{tower}.post_layernorm")
        self._align1 = _affine(tensors, "model.aligner.linear1")
        self._align2 = _affine(tensors, "model.aligner.linear2")

    @torch.inference_mode()
    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Give the features `(pictures, num_image_tokens, text_hidden)` of pixels `(pictures, 3, side, side)`."""
        return self._align(self.encode(pixel_values))

    @torch.inference_mode()
    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Give what SigLIP sees in pixels `(pictures, 3, side, side)`: `(pictures, patches, hidden)`."""
        if pixel_values.shape[-2:] != (self._side, self._side):
            raise ValueError(f"pictures are {tuple(pixel_values.shape[-2:])} pixels, not {self._side} x {self._side}")
        hidden = self._apply(self._patches, self._cut(pixel_values.to(self._positions.dtype))) + self._positions
        for layer in self._layers:
            hidden = hidden + self._attend(layer, self._normalize(layer.norm1, hidden))
            inner = self._apply(layer.fc1, self._normalize(layer.norm2, hidden))
            hidden = hidden + self._apply(layer.fc2, functional.gelu(inner, approximate=self._approximation))
        return self._normalize(self._norm, hidden)

    def _align(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._apply(self._align2, functional.gelu(self._apply(self._align1, hidden)))

    def _apply(self, affine: _Affine, hidden: torch.Tensor) -> torch.Tensor:
        return self.linear(hidden, affine.weight, affine.bias)

    def _normalize(self, affine: _Affine, hidden: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(hidden, hidden.shape[-1:], affine.weight, affine.bias, self._epsilon)

    def _cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Cut pictures into patches `(pictures, patches, channels * patch * patch)`: a convolution without overlap."""
        count, channels, side, _ = pixels.shape
        grid = side // self._patch
        used = pixels[..., : grid * self._patch, : grid * self._patch]
        patches = used.reshape(count, channels, grid, self._patch, grid, self._patch)
        return patches.permute(0, 2, 4, 1, 3, 5).reshape(count, grid * grid, -1)

    def _attend(self, layer: _Layer, hidden: torch.Tensor) -> torch.Tensor:
        count, length, width = hidden.shape
        qkv = self._apply(layer.qkv, hidden).view(count, length, 3, self._heads, width // self._heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self._apply(layer.out, attended.transpose(1, 2).reshape(count, length, width))


def _affine(tensors: Mapping[str, torch.Tensor], name: str) -> _Affine:
    return _Affine(tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _layer(tensors: Mapping[str, torch.Tensor], name: str) -> _Layer:
    parts = [_affine(tensors, f"{name}.self_attn.{part}_proj") for part in "qkv"]
    qkv = _Affine(
        torch.cat([part.weight for part in parts]),
        torch.cat([part.bias for part in parts if part.bias is not None]),
    )
    return _Layer(
        norm1=_affine(tensors, f"{name}.layer_norm1"),
        qkv=qkv,
        out=_affine(tensors, f"{name}.self_attn.out_proj"),
        norm2=_affine(tensors, f"{name}.layer_norm2"),
        fc1=_affine(tensors, f"{name}.mlp.fc1"),
        fc2=_affine(tensors, f"{name}.mlp.fc2"),
    )

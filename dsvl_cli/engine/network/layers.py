"""The shape and the weights of the language model, a Llama."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dsvl_cli.engine.checkpoint.layouts import text_settings
from dsvl_cli.engine.kernels.stored_weights import Linear, Weight
from dsvl_cli.errors import DsvlError


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The shape of the language model."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    vocab_size: int
    context_length: int
    intermediate_size: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """Read `config.json`.

        Raises:
            DsvlError: it needs something that this decoder does not support.
        """
        text = text_settings(config)
        rope = text["rope_parameters"]
        if rope["rope_type"] != "default":
            raise DsvlError(f"the language model uses {rope['rope_type']} positions, which dsvl does not support")
        if text["hidden_act"] != "silu":
            raise DsvlError(f"the language model uses {text['hidden_act']} activations, which dsvl does not support")
        return cls(
            hidden_size=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            head_dim=text["head_dim"],
            rms_norm_eps=text["rms_norm_eps"],
            rope_theta=rope["rope_theta"],
            vocab_size=text["vocab_size"],
            context_length=text["max_position_embeddings"],
            intermediate_size=text["intermediate_size"],
        )

    @property
    def linear_parameters(self) -> int:
        """The number of parameters of the linear layers, without the head."""
        attention = 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def head_parameters(self) -> int:
        """The number of parameters of the head."""
        return self.vocab_size * self.hidden_size


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer: norms `(hidden,)` in the dtype of activations, and seven linear layers without biases."""

    attention_norm: torch.Tensor
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    feed_forward_norm: torch.Tensor
    gate: Linear
    up: Linear
    down: Linear

    def linears(self) -> dict[str, Linear]:
        """Return the linear layers by name."""
        return {
            "query": self.query, "key": self.key, "value": self.value, "output": self.output,
            "gate": self.gate, "up": self.up, "down": self.down,
        }  # fmt: skip


def check_shapes(config: DecoderConfig, layers: Sequence[LayerWeights], norm: torch.Tensor, head: Linear) -> None:
    """Compare the weights with the configuration.

    Raises:
        ValueError: a shape is not what the configuration says. Compiled code relies on this check.
    """
    hidden, inner = config.hidden_size, config.heads * config.head_dim
    outer, wide = config.kv_heads * config.head_dim, config.intermediate_size
    if min(hidden, inner, outer, wide, config.vocab_size) < 1 or config.heads % config.kv_heads or config.head_dim % 2:
        raise ValueError("the numbers of heads and their dimension do not fit each other")
    shapes = {
        "query": (inner, hidden), "key": (outer, hidden), "value": (outer, hidden), "output": (hidden, inner),
        "gate": (wide, hidden), "up": (wide, hidden), "down": (hidden, wide),
    }  # fmt: skip
    for index, layer in enumerate(layers):
        for name, linear in layer.linears().items():
            _check(f"layer {index}, {name}", linear, shapes[name])
        for weight in (layer.attention_norm, layer.feed_forward_norm):
            _check(f"layer {index}, a norm", weight, (hidden,))
    _check("the last norm", norm, (hidden,))
    _check("the head", head, (config.vocab_size, hidden))


def _check(name: str, weight: Linear | torch.Tensor, wanted: tuple[int, ...]) -> None:
    if isinstance(weight, Weight | torch.Tensor) and tuple(weight.shape) != wanted:
        raise ValueError(f"{name}: the shape is {tuple(weight.shape)}, not {wanted}")

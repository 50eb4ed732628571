"""A checkpoint's files -> the language model, without transformers.

Tensors are memory-mapped: a weight used in its stored format takes no extra memory. Weights in dsvl's own formats are
quantized once and memory-mapped from then on (`packed_weights.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from dsvl_cli.engine.checkpoint.layouts import EMBEDDINGS, HEAD, may_head_be_tied, text_settings
from dsvl_cli.engine.kernels.kernels import Kernels
from dsvl_cli.engine.kernels.stored_weights import Weight, interleave_int8
from dsvl_cli.engine.network.decoder import Decoder
from dsvl_cli.engine.network.layers import DecoderConfig, LayerWeights, check_shapes
from dsvl_cli.engine.network.vision import find_vision_obstacle, list_vision_tensors

_LANGUAGE_MODEL = "model.language_model."
_LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
_NORMS = ("input_layernorm", "post_attention_layernorm")


def find_obstacle(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return why only transformers can run a 1.3b checkpoint, or None; its layout is not checked.

    Args:
        config: `config.json`.
        names: of the tensors, in the current layout.
    """
    text = text_settings(config)
    if text.get("attention_bias") or text.get("mlp_bias"):
        return "its linear layers have biases"
    if any(name.endswith(".SCB") and not name.startswith((_LANGUAGE_MODEL, "lm_head")) for name in names):
        return "its vision tower is quantized"
    return find_vision_obstacle(config)


def find_missing_name(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return the first tensor of a 1.3b that is missing under its current name, or None if all are there."""
    names = set(names)
    language = DecoderConfig.read(config)
    wanted = [f"{_LANGUAGE_MODEL}norm.weight"]
    wanted += [f"{name}.weight" for name in list_linears(language)]
    wanted += [f"{_LANGUAGE_MODEL}layers.{i}.{norm}.weight" for i in range(language.layers) for norm in _NORMS]
    wanted += list_vision_tensors(config)
    if not may_head_be_tied(config):
        wanted += [EMBEDDINGS, HEAD]
    elif HEAD not in names:
        wanted.append(EMBEDDINGS)
    return next((name for name in wanted if name not in names), None)


def list_linears(config: DecoderConfig) -> Iterator[str]:
    """List the linear layers of the language model in order, without the head."""
    for index in range(config.layers):
        for name in _LINEARS:
            yield f"{_LANGUAGE_MODEL}layers.{index}.{name}"


def is_stored_int8(tensors: Mapping[str, torch.Tensor], name: str) -> bool:
    """Whether a linear layer is stored in bitsandbytes' 8 bits."""
    return f"{name}.SCB" in tensors


def read_linear(tensors: Mapping[str, torch.Tensor], name: str, dtype: torch.dtype) -> Weight:
    """Read a linear layer in 16 or 32 bits; bitsandbytes' 8 bits are dequantized."""
    data = tensors[f"{name}.weight"]
    if is_stored_int8(tensors, name):
        return Weight.dense((data.float() * _stored_scales(tensors, name).unsqueeze(1)).to(dtype))
    return Weight.dense(data.to(dtype))


def interleave_stored_int8(tensors: Mapping[str, torch.Tensor], name: str) -> Weight:
    """Read a linear layer in bitsandbytes' 8 bits, with one scale per row; in-features are a multiple of 64."""
    return interleave_int8(tensors[f"{name}.weight"], _stored_scales(tensors, name))


def _stored_scales(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    return tensors[f"{name}.SCB"].float() / 127


def read_decoder(
    tensors: Mapping[str, torch.Tensor],
    config: DecoderConfig,
    dtype: torch.dtype,
    kernels: Kernels,
    packed: Mapping[str, Weight] | None = None,
) -> Decoder:
    """Build the language model.

    Args:
        tensors: by name.
        config: the shape.
        dtype: of embeddings, head and everything that is not quantized.
        kernels: the backend.
        packed: linear layers in dsvl's own formats, by name; the others are read as they are stored.
    """
    packed = packed or {}

    def get(name: str) -> Weight:
        return packed[name] if name in packed else read_linear(tensors, name, dtype)

    def norm(name: str) -> torch.Tensor:
        return tensors[f"{_LANGUAGE_MODEL}{name}.weight"].to(kernels.compute_dtype)

    layers = []
    for index in range(config.layers):
        prefix = f"layers.{index}."
        query, key, value, output, gate, up, down = (get(f"{_LANGUAGE_MODEL}{prefix}{name}") for name in _LINEARS)
        layers.append(
            LayerWeights(
                norm(f"{prefix}input_layernorm"), query, key, value, output,
                norm(f"{prefix}post_attention_layernorm"), gate, up, down,
            )
        )  # fmt: skip
    # Tied weights may be stored under either name; two different tensors are both used, as in transformers.
    embeddings = tensors[EMBEDDINGS if EMBEDDINGS in tensors else HEAD].to(dtype)
    name = HEAD.removesuffix(".weight")
    head = get(name) if HEAD in tensors or name in packed else Weight.dense(embeddings)
    last = norm("norm")
    check_shapes(config, layers, last, head)
    return Decoder(config, embeddings, layers, last, head, kernels)

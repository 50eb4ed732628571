"""A checkpoint's files -> the language model, without transformers.

Tensors are mapped from the files: a weight that is used as it is stored takes no memory of its own. What is quantized
for dsvl's own kernels is packed once, and mapped from then on (`packed.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from dsvl_cli.engine.checkpoint.layouts import EMBEDDINGS, HEAD, is_head_tied, text_settings
from dsvl_cli.engine.kernels.kernels import Kernels
from dsvl_cli.engine.kernels.stored_weights import Kind, Linear, Weight
from dsvl_cli.engine.network.decoder import Decoder, DecoderConfig, LayerWeights
from dsvl_cli.engine.network.vision import find_vision_obstacle, list_vision_tensors

_LANGUAGE_MODEL = "model.language_model."
_LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
_NORMS = ("input_layernorm", "post_attention_layernorm")


def find_obstacle(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Tell why a 1.3b cannot be read here, though transformers might read it; None where it can.

    Args:
        config: `config.json`.
        names: of the tensors, as of today.
    """
    text, names = text_settings(config), set(names)
    if text.get("attention_bias") or text.get("mlp_bias"):
        return "its linear layers have biases"
    if any(name.endswith(".SCB") and not name.startswith((_LANGUAGE_MODEL, "lm_head")) for name in names):
        return "its vision tower is quantized"
    return find_vision_obstacle(config) or find_unknown_names(config, names)


def find_unknown_names(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Name the first tensor of a 1.3b that is not there under its name of today; None where all are."""
    names = set(names)
    language = DecoderConfig.read(config)
    wanted = [f"{_LANGUAGE_MODEL}norm.weight"]
    wanted += [f"{name}.weight" for name in list_linears(language)]
    wanted += [f"{_LANGUAGE_MODEL}layers.{i}.{norm}.weight" for i in range(language.layers) for norm in _NORMS]
    wanted += list_vision_tensors(config)
    if not is_head_tied(config):
        wanted += [EMBEDDINGS, HEAD]
    elif HEAD not in names:
        wanted.append(EMBEDDINGS)
    missing = next((name for name in wanted if name not in names), None)
    return None if missing is None else f"it has no {missing}"


def list_linears(config: DecoderConfig) -> Iterator[str]:
    """Name the linear layers of the language model, the head not among them, in their order."""
    for index in range(config.layers):
        for name in _LINEARS:
            yield f"{_LANGUAGE_MODEL}layers.{index}.{name}"


def read_linear(tensors: Mapping[str, torch.Tensor], name: str, dtype: torch.dtype) -> Weight:
    """Take a linear layer as it is stored: in 16 or 32 bits, or in bitsandbytes' 8 bits with a scale a row."""
    data = tensors[f"{name}.weight"]
    if f"{name}.SCB" in tensors:
        scales = tensors[f"{name}.SCB"].float() / 127
        return Weight(Kind.INT8, data, scales, (data.shape[0], data.shape[1]))
    return Weight.dense(data.to(dtype))


def read_decoder(
    tensors: Mapping[str, torch.Tensor],
    config: DecoderConfig,
    dtype: torch.dtype,
    kernels: Kernels,
    linear: Callable[[str], Linear] | None = None,
) -> Decoder:
    """Put the language model together.

    Args:
        tensors: by their names.
        config: the shape.
        dtype: of embeddings, head and what is not quantized.
        kernels: multiply.
        linear: gives a linear layer by its name; as it is stored by default.
    """
    get = linear or (lambda name: read_linear(tensors, name, dtype))

    def norm(name: str) -> torch.Tensor:
        return tensors[f"{_LANGUAGE_MODEL}{name}.weight"].to(kernels.compute_dtype)

    layers = []
    for index in range(config.layers):
        place = f"layers.{index}."
        query, key, value, output, gate, up, down = (get(f"{_LANGUAGE_MODEL}{place}{name}") for name in _LINEARS)
        layers.append(
            LayerWeights(
                norm(f"{place}input_layernorm"), query, key, value, output,
                norm(f"{place}post_attention_layernorm"), gate, up, down,
            )
        )  # fmt: skip
    # Tied, either may be the one that is stored; with two that differ, each counts, as in transformers.
    embeddings = tensors[EMBEDDINGS if EMBEDDINGS in tensors else HEAD].to(dtype)
    head = get(HEAD.removesuffix(".weight")) if HEAD in tensors else Weight.dense(embeddings)
    return Decoder(config, embeddings, layers, norm("norm"), head, kernels)

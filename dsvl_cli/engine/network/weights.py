"""A checkpoint's files -> the language model, without transformers.

Tensors are mapped from the files: a weight that is used as it is stored takes no memory of its own. What is quantized
for dsvl's own kernels is packed once, and mapped from then on (`packed.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from safetensors import safe_open

from dsvl_cli.engine.checkpoint.find import Checkpoint, list_weights
from dsvl_cli.engine.kernels.kernels import Kernels
from dsvl_cli.engine.kernels.stored_weights import Kind, Linear, Weight
from dsvl_cli.engine.network.decoder import Decoder, DecoderConfig, LayerWeights
from dsvl_cli.errors import DsvlError

HEAD = "lm_head.weight"
_LANGUAGE_MODEL = "model.language_model."
_LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


class TensorFiles(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint by the names that they are stored under; use it in a `with` statement."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._places: dict[str, Any] = {}
        self._files = ExitStack()

    def __enter__(self) -> TensorFiles:
        for path in list_weights(self._checkpoint.path):
            file = self._files.enter_context(safe_open(path, framework="pt"))
            self._places.update(dict.fromkeys(file.keys(), file))
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._places:
            raise DsvlError(f"{self._checkpoint.name} has no {name}", "download it again")
        tensor: torch.Tensor = self._places[name].get_tensor(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def can_read(checkpoint: Checkpoint, names: TensorFiles) -> bool:
    """Tell whether the names are today's and the towers are not quantized.

    Older versions of transformers wrote some names otherwise.
    """
    text = checkpoint.config.get("text_config") or {}
    biased = bool(text.get("attention_bias") or text.get("mlp_bias"))
    narrow = any(name.endswith(".SCB") and not name.startswith((_LANGUAGE_MODEL, "lm_head")) for name in names)
    return not biased and not narrow and f"{_LANGUAGE_MODEL}embed_tokens.weight" in names


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
    embeddings = tensors[f"{_LANGUAGE_MODEL}embed_tokens.weight"].to(dtype)
    head = get(HEAD.removesuffix(".weight")) if HEAD in tensors else Weight.dense(embeddings)
    return Decoder(config, embeddings, layers, norm("norm"), head, kernels)

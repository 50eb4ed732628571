"""A decode step on a CPU in one native call: one token of each of several sequences, through all layers.

Written in Python, a step of the 1.3b makes about 300 small calls, and the threads start and stop at each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from dsvl_cli.engine.kernels.kernels import Kernels, Route
from dsvl_cli.engine.kernels.native.binding import (
    NativeLayer,
    NativeLinear,
    NativeModel,
    Scratch,
    address,
    addresses,
    numbers,
)
from dsvl_cli.engine.kernels.native_kernels import NativeKernels
from dsvl_cli.engine.kernels.stored_weights import FLOAT_KINDS, Linear, Weight
from dsvl_cli.engine.network.kv_cache import KVCache
from dsvl_cli.engine.network.layers import DecoderConfig, LayerWeights
from dsvl_cli.engine.network.team_size import TeamSize

_COLUMNS = 8  # all dimensions are multiples of this


class NativeStep:
    """Appends one token to each of several caches.

    Args:
        config: the shape of the language model.
        layers: its weights, all stored ones.
        norm: the final norm.
        head: `(vocabulary, hidden)`.
        kernels: the compiled kernels.
        frequencies: of the rotary embedding, `(head_dim / 2,)`.
        cache_dtype: of the caches.
    """

    def __init__(
        self,
        config: DecoderConfig,
        layers: Sequence[LayerWeights],
        norm: torch.Tensor,
        head: Weight,
        kernels: NativeKernels,
        frequencies: torch.Tensor,
        cache_dtype: torch.dtype,
    ) -> None:
        self._library = kernels.library
        self._vocabulary = config.vocab_size
        self._scratch = Scratch()
        self._team = TeamSize()
        self._keep = (layers, norm, head, frequencies)  # the structures only point to them
        self._layers = (NativeLayer * len(layers))(*(_refer(layer) for layer in layers))
        self._model = NativeModel(
            len(layers), config.hidden_size, config.heads, config.kv_heads, config.head_dim, config.intermediate_size,
            config.vocab_size, int(FLOAT_KINDS[cache_dtype]), config.rms_norm_eps, address(frequencies), address(norm),
            self._layers, NativeLinear.of(head),
        )  # fmt: skip

    def __call__(self, embeddings: torch.Tensor, caches: Sequence[KVCache]) -> torch.Tensor:
        """Append a token to each cache; return the next logits.

        Args:
            embeddings: `(sequences, hidden)`.
            caches: each holds at least one position.

        Returns:
            `(sequences, vocabulary)`, float32.
        """
        for cache in caches:
            cache.ensure_room(cache.length + 1)
        buffers = [cache.layers[index].buffers() for index in range(len(self._layers)) for cache in caches]
        x = embeddings.clone(memory_format=torch.contiguous_format)
        rows = len(caches)
        logits = torch.empty((rows, self._vocabulary))
        arguments = (
            ctypes.byref(self._model),
            rows,
            address(x),
            numbers([cache.length for cache in caches]),
            addresses([keys for keys, _ in buffers]),
            addresses([values for _, values in buffers]),
            numbers([cache.capacity for cache in caches]),
            address(logits),
            self._scratch.at_least(self._library.dsvl_step_scratch(ctypes.byref(self._model), rows)),
        )
        self._team.run(torch.get_num_threads(), lambda threads: self._library.dsvl_step(*arguments, threads))
        for cache in caches:
            cache.length += 1
        return logits


def _refer(layer: LayerWeights) -> NativeLayer:
    weights = {name: weight for name, weight in layer.linears().items() if isinstance(weight, Weight)}
    return NativeLayer(
        attention_norm=address(layer.attention_norm),
        feed_forward_norm=address(layer.feed_forward_norm),
        **{name: NativeLinear.of(weight) for name, weight in weights.items()},
    )


def find_native_step(
    config: DecoderConfig,
    layers: Sequence[LayerWeights],
    norm: torch.Tensor,
    head: Linear,
    kernels: Kernels,
    frequencies: torch.Tensor,
    cache_dtype: torch.dtype,
) -> NativeStep | None:
    """Return the step for a language model, or None if a part of it is not computed by compiled code."""
    if not isinstance(kernels, NativeKernels) or not isinstance(head, Weight):
        return None
    weights = [weight for layer in layers for weight in layer.linears().values()] + [head]
    sizes = (config.hidden_size, config.head_dim, config.intermediate_size)
    if any(size % _COLUMNS for size in sizes) or cache_dtype not in FLOAT_KINDS:
        return None
    for weight in weights:
        if not isinstance(weight, Weight) or not weight.data.is_contiguous():
            return None
        if any(kernels.route(weight.kind, rows) is not Route.NATIVE for rows in (1, 2)):
            return None
    return NativeStep(config, layers, norm, head, kernels, frequencies, cache_dtype)

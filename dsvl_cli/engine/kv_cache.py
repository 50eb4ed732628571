"""The KV cache: it grows in place, can be cut back to any length, and knows which tokens it holds.

transformers' `DynamicCache` concatenates every key and value of every layer at every token; here a layer writes into
a buffer with room to spare, and a step costs only the new position. `PrefixCache` keeps one such cache from turn to
turn and finds how much of the next prompt it already holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from dsvl_cli.engine.prompt import TokenKey

GROWTH = 256  # positions; a buffer's capacity is a multiple of it


class GrowingLayer(CacheLayerMixin):
    """One layer's keys and values: buffers `(batch, heads, capacity, head_dim)` of which `length` positions count."""

    is_croppable = True

    def __init__(self, reserve: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0
        self.reserve = reserve

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the buffers in the shape, dtype and device of the first states."""
        capacity = _round_up(max(self.reserve, key_states.shape[-2]))
        self.keys = _buffer_like(key_states, capacity)
        self.values = _buffer_like(value_states, capacity)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states `(batch, heads, new, head_dim)`; return views of all `(batch, heads, length, head_dim)`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = self.length + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            capacity = _round_up(end + end // 8)
            self.keys = self._grown(self.keys, capacity)
            self.values = self._grown(self.values, capacity)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grown(self, buffer: torch.Tensor, capacity: int) -> torch.Tensor:
        grown = _buffer_like(buffer, capacity)
        grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown

    def truncate(self, length: int) -> None:
        """Forget what lies behind `length`; the memory stays for what comes next."""
        self.length = min(self.length, length)

    def select(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch, `rows` a 1-d tensor of indices."""
        if self.keys is not None and self.values is not None:
            self.keys = self.keys[rows]
            self.values = self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of the keys that a mask for `query_length` new positions must cover."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return how many positions are held."""
        return self.length

    def get_max_length(self) -> int:
        """Return -1: there is no bound."""
        return -1


class GrowingCache(Cache):
    """A `GrowingLayer` for each layer of the language model.

    Args:
        layers: how many layers the language model has.
        reserve: positions to make room for at the first use.
    """

    def __init__(self, layers: int, reserve: int = 0) -> None:
        self._growing = [GrowingLayer(reserve) for _ in range(layers)]
        super().__init__(layers=list(self._growing))

    @property
    def length(self) -> int:
        """Positions that every layer holds: an interrupted step may have reached only the first layers."""
        return min(layer.length for layer in self._growing)

    def truncate(self, length: int) -> None:
        """Cut every layer back to at most `length` positions."""
        for layer in self._growing:
            layer.truncate(length)

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows of the batch."""
        for layer in self._growing:
            device = layer.keys.device if layer.keys is not None else None
            layer.select(torch.tensor(rows, device=device))


class PrefixCache:
    """A cache for one conversation: keeps what was computed in one turn for the next.

    Positions are known by `TokenKey`s: a text token by its id, a picture's token by the picture's content and its
    place in it. `keys` lists only positions that every layer surely holds, so an interrupted step leaves no trace.
    """

    def __init__(self, layers: int) -> None:
        self.cache = GrowingCache(layers)
        self.keys: list[TokenKey] = []

    def reuse(self, keys: Sequence[TokenKey]) -> int:
        """Cut the cache back to the longest common prefix with a prompt and return that prefix's length.

        At least one token of the prompt is left to be computed, since the next one follows from its hidden state.
        """
        longest = min(len(self.keys), len(keys) - 1)
        common = next((i for i in range(longest) if self.keys[i] != keys[i]), max(longest, 0))
        self.cache.truncate(common)
        del self.keys[common:]
        return common

    def commit(self, keys: Sequence[TokenKey]) -> None:
        """Say which tokens the positions now hold that were computed since the last `reuse` or `commit`."""
        self.keys.extend(keys)


def _round_up(positions: int) -> int:
    return -(-positions // GROWTH) * GROWTH


def _buffer_like(states: torch.Tensor, capacity: int) -> torch.Tensor:
    batch, heads, _, head_dim = states.shape
    return torch.empty((batch, heads, capacity, head_dim), dtype=states.dtype, device=states.device)

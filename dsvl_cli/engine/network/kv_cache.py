"""The KV cache: it grows in place, can be truncated and copied, and knows which tokens it holds.

transformers' `DynamicCache` concatenates the keys and values of every layer at every token. Here a layer writes into a
buffer with spare capacity, and a step costs only the new position. Each sequence has its own cache, so sequences of
different lengths can be computed together, and join and leave at any step. `PrefixCache` keeps a cache between turns
and finds how much of the next prompt it already holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dsvl_cli.engine.text.prompt import TokenKey

GROWTH = 256  # positions; a buffer's capacity is a multiple of it


class LayerCache:
    """One layer's keys and values of one sequence: buffers `(kv_heads, capacity, head_dim)`."""

    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def write(self, start: int, keys: torch.Tensor, values: torch.Tensor, reserve: int) -> None:
        """Write states `(kv_heads, new, head_dim)` at the positions from `start` on; later positions become invalid.

        Args:
            start: the number of valid positions.
            keys: in the dtype in which they are stored.
            values: likewise.
            reserve: positions to allocate at the first use.
        """
        end = start + keys.shape[1]
        if self.keys is None or self.values is None:
            capacity = _round_up(max(reserve, end))
            self.keys, self.values = _buffer_like(keys, capacity), _buffer_like(values, capacity)
        if end > self.capacity:
            self.grow(_round_up(end + end // 8), start)
        self.keys[:, start:end] = keys
        self.values[:, start:end] = values

    @property
    def capacity(self) -> int:
        """The number of positions that the buffers can hold; 0 before the first use."""
        return 0 if self.keys is None else self.keys.shape[1]

    def grow(self, capacity: int, kept: int) -> None:
        """Grow existing buffers that hold less than `capacity` positions; the first `kept` are copied."""
        if self.keys is not None and self.values is not None and capacity > self.keys.shape[1]:
            self.keys, self.values = _grown(self.keys, capacity, kept), _grown(self.values, capacity, kept)

    def buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values, each `(kv_heads, capacity, head_dim)`; the cache must have been written to."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def read(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return views `(kv_heads, length, head_dim)` of the keys and values of the first positions."""
        keys, values = self.buffers()
        return keys[:, :length], values[:, :length]


class KVCache:
    """The keys and values of one sequence.

    Args:
        layers: the number of layers of the language model.
        reserve: positions to allocate at the first use.

    Attributes:
        length: the positions that all layers hold; an interrupted step does not count.
    """

    def __init__(self, layers: int, reserve: int = 0) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.reserve = reserve
        self.length = 0

    @property
    def capacity(self) -> int:
        """The number of positions that the buffers can hold; 0 before the first use."""
        return self.layers[0].capacity

    def ensure_room(self, end: int) -> None:
        """Grow the buffers to hold `end` positions, all to the same capacity; does nothing before the first use.

        A computation that was interrupted between two layers leaves different ones, and compiled code takes only one.
        """
        capacity = max(layer.capacity for layer in self.layers)
        if end > capacity > 0:
            capacity = _round_up(end + end // 8)
        for layer in self.layers:
            layer.grow(capacity, self.length)

    def truncate(self, length: int) -> None:
        """Drop all positions from `length` on; the memory is kept."""
        self.length = min(self.length, length)

    def fork(self, length: int, reserve: int) -> KVCache:
        """Copy the first `length` positions into a new cache that has room for `reserve`."""
        copy = KVCache(len(self.layers), reserve)
        copy.length = min(self.length, length)
        for layer, source in zip(copy.layers, self.layers, strict=True):
            if source.keys is not None:
                layer.write(0, *source.read(copy.length), reserve)
        return copy


class PrefixCache:
    """A cache for one conversation, kept from one turn to the next.

    Positions are identified by `TokenKey`s: a text token by its id, a picture's token by the picture's content and its
    index in it. `keys` lists only positions that all layers hold.

    Args:
        cache: empty.
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.keys: list[TokenKey] = []

    def reuse(self, keys: Sequence[TokenKey]) -> int:
        """Truncate the cache to the longest common prefix with a prompt; return the length of that prefix.

        At least the last token of the prompt is left to compute: the next token's logits come from it.
        """
        common = count_common(self.keys, keys[:-1])
        self.cache.truncate(common)
        del self.keys[common:]
        return common

    def commit(self, keys: Sequence[TokenKey]) -> None:
        """Record the tokens of the positions that were computed since the last `reuse` or `commit`."""
        self.keys.extend(keys)


def count_common(one: Sequence[TokenKey], other: Sequence[TokenKey]) -> int:
    """Return the length of the longest common prefix."""
    longest = min(len(one), len(other))
    return next((i for i in range(longest) if one[i] != other[i]), longest)


def _round_up(positions: int) -> int:
    return -(-positions // GROWTH) * GROWTH


def _buffer_like(states: torch.Tensor, capacity: int) -> torch.Tensor:
    heads, _, head_dim = states.shape
    # Zeros, not uninitialized memory: a static step reads the whole buffer under a mask, and NaN would pass it.
    return torch.zeros((heads, capacity, head_dim), dtype=states.dtype, device=states.device)


def _grown(buffer: torch.Tensor, capacity: int, length: int) -> torch.Tensor:
    grown = _buffer_like(buffer, capacity)
    grown[:, :length] = buffer[:, :length]
    return grown

"""The KV cache: it grows in place, can be cut back to any length, copied, and knows which tokens it holds.

transformers' `DynamicCache` concatenates every key and value of every layer at every token; here a layer writes into
a buffer with room to spare, and a step costs only the new position. Each sequence has a cache of its own, so sequences
of any lengths can be computed together, and join and leave at any step. `PrefixCache` keeps one from turn to turn and
finds how much of the next prompt it already holds.
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
        """Put states `(kv_heads, new, head_dim)` at the positions from `start` on; what lies behind them is void.

        Args:
            start: how many positions count already.
            keys: in the dtype in which they are kept.
            values: likewise.
            reserve: positions to make room for at the first use.
        """
        end = start + keys.shape[1]
        if self.keys is None or self.values is None:
            capacity = _round_up(max(reserve, end))
            self.keys, self.values = _buffer_like(keys, capacity), _buffer_like(values, capacity)
        self.ensure_room(end, start)
        self.keys[:, start:end] = keys
        self.values[:, start:end] = values

    def ensure_room(self, end: int, kept: int) -> None:
        """Let buffers that are there hold `end` positions; the first `kept` stay as they are."""
        if self.keys is not None and self.values is not None and end > self.keys.shape[1]:
            capacity = _round_up(end + end // 8)
            self.keys, self.values = _grown(self.keys, capacity, kept), _grown(self.values, capacity, kept)

    def buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the keys and values, each `(kv_heads, capacity, head_dim)`, of a cache that was written to."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def read(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Give views `(kv_heads, length, head_dim)` of the keys and values of the first positions."""
        keys, values = self.buffers()
        return keys[:, :length], values[:, :length]


class KVCache:
    """The keys and values of one sequence.

    Args:
        layers: how many layers the language model has.
        reserve: positions to make room for at the first use.

    Attributes:
        length: the positions that every layer surely holds: an interrupted step leaves no trace.
    """

    def __init__(self, layers: int, reserve: int = 0) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.reserve = reserve
        self.length = 0

    @property
    def capacity(self) -> int:
        """How many positions the buffers hold; 0 before the first use."""
        keys = self.layers[0].keys
        return 0 if keys is None else keys.shape[1]

    def ensure_room(self, end: int) -> None:
        """Let the buffers hold `end` positions, once they are there."""
        for layer in self.layers:
            layer.ensure_room(end, self.length)

    def truncate(self, length: int) -> None:
        """Forget what lies behind `length`; the memory stays for what comes next."""
        self.length = min(self.length, length)

    def fork(self, length: int, reserve: int) -> KVCache:
        """Copy the first `length` positions into a cache of its own, with room for `reserve`."""
        copy = KVCache(len(self.layers), reserve)
        copy.length = min(self.length, length)
        for layer, source in zip(copy.layers, self.layers, strict=True):
            if source.keys is not None:
                layer.write(0, *source.read(copy.length), reserve)
        return copy


class PrefixCache:
    """A cache for one conversation: keeps what was computed in one turn for the next.

    Positions are known by `TokenKey`s: a text token by its id, a picture's token by the picture's content and its
    place in it. `keys` lists only positions that every layer surely holds.

    Args:
        cache: empty.
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.keys: list[TokenKey] = []

    def reuse(self, keys: Sequence[TokenKey]) -> int:
        """Cut the cache back to the longest common prefix with a prompt and return that prefix's length.

        At least one token of the prompt is left to be computed, since the next one follows from its hidden state.
        """
        common = count_common(self.keys, keys[:-1])
        self.cache.truncate(common)
        del self.keys[common:]
        return common

    def commit(self, keys: Sequence[TokenKey]) -> None:
        """Say which tokens the positions now hold that were computed since the last `reuse` or `commit`."""
        self.keys.extend(keys)


def count_common(one: Sequence[TokenKey], other: Sequence[TokenKey]) -> int:
    """Give the length of the longest common prefix."""
    longest = min(len(one), len(other))
    return next((i for i in range(longest) if one[i] != other[i]), longest)


def _round_up(positions: int) -> int:
    return -(-positions // GROWTH) * GROWTH


def _buffer_like(states: torch.Tensor, capacity: int) -> torch.Tensor:
    heads, _, head_dim = states.shape
    # Zeros: a step that looks at the whole buffer behind a mask must find numbers there.
    return torch.zeros((heads, capacity, head_dim), dtype=states.dtype, device=states.device)


def _grown(buffer: torch.Tensor, capacity: int, length: int) -> torch.Tensor:
    grown = _buffer_like(buffer, capacity)
    grown[:, :length] = buffer[:, :length]
    return grown

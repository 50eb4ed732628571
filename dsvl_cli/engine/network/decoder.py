"""The language model of DeepSeek-VL, a Llama, for several sequences of any lengths at once.

The new tokens of all sequences are concatenated, `(tokens, hidden)`, without padding: every linear layer multiplies all
of them at once, and only attention handles each sequence with its own cache. A prefill, a decode step and a batched
decode step are therefore the same function, and sequences can join and leave at any step.

Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023, as in transformers' `LlamaModel`; in
float32 the logits are equal up to rounding (tests/engine/network/test_decoder.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.kernels import Kernels
from dsvl_cli.engine.kernels.stored_weights import Linear, Weight
from dsvl_cli.engine.network.kv_cache import KVCache, LayerCache
from dsvl_cli.engine.network.layers import DecoderConfig, LayerWeights
from dsvl_cli.engine.network.native_step import NativeStep, find_native_step


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence's share of a forward pass.

    Attributes:
        cache: the positions before; the new ones are appended.
        count: the number of new tokens.
        tree: how the new tokens follow each other; None if each follows the one before it.
    """

    cache: KVCache
    count: int
    tree: Tree | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """Several continuations of one sequence that share beginnings, computed together (Miao et al., "SpecInfer", 2023).

    Attributes:
        depths: of each new token, `(count,)`; 0 for those that follow the sequence itself.
        sees: `(count, count)`, whether a token attends to another: to itself and to those before it on its path.
    """

    depths: torch.Tensor
    sees: torch.Tensor

    @classmethod
    def of(cls, parents: Sequence[int], device: torch.device) -> Tree:
        """Make a tree from the index of the token that each one follows, which comes before it; -1 for none."""
        depths: list[int] = []
        sees = torch.zeros((len(parents), len(parents)), dtype=torch.bool)
        for index, parent in enumerate(parents):
            depths.append(0 if parent < 0 else depths[parent] + 1)
            if parent >= 0:
                sees[index] = sees[parent]
            sees[index, index] = True
        return cls(torch.tensor(depths, device=device), sees.to(device))


class Decoder:
    """A language model with its head.

    Args:
        config: the shape.
        embeddings: `(vocabulary, hidden)`.
        layers: the weights.
        norm: the final norm, `(hidden,)`.
        head: `(vocabulary, hidden)`.
        kernels: the backend for products and single-query attention.
        attention: `sdpa`, `eager` or `flash_attention_2`; only with `sdpa` the kernels compute single queries.
    """

    def __init__(
        self,
        config: DecoderConfig,
        embeddings: torch.Tensor,
        layers: Sequence[LayerWeights],
        norm: torch.Tensor,
        head: Linear,
        kernels: Kernels,
        attention: str = "sdpa",
    ) -> None:
        self.config = config
        self.embeddings = embeddings
        self.layers = list(layers)
        self.norm = norm
        self.head = head
        self.kernels = kernels
        self.attention = attention
        self.device = embeddings.device
        # A bfloat16 cache takes half the memory; with float32 weights everything is float32.
        self.cache_dtype = embeddings.dtype
        self._frequencies = 1.0 / config.rope_theta ** (
            torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=self.device) / config.head_dim
        )
        self._native_step: NativeStep | None = None
        if attention == "sdpa":
            self._native_step = find_native_step(
                config, self.layers, norm, head, kernels, self._frequencies, self.cache_dtype
            )

    @property
    def bytes_per_token(self) -> int:
        """The size of one position in a cache."""
        shape = self.config
        return 2 * shape.layers * shape.kv_heads * shape.head_dim * self.cache_dtype.itemsize

    @torch.inference_mode()
    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings `(tokens, hidden)` of ids `(tokens,)`."""
        return functional.embedding(token_ids, self.embeddings).to(self.kernels.compute_dtype)

    @torch.inference_mode()
    def forward(
        self,
        embeddings: torch.Tensor,
        segments: Sequence[Segment],
        after_layer: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Append new tokens to the caches of their sequences; return the next token's logits of each.

        Args:
            embeddings: `(sum of counts, hidden)`, the sequences concatenated.
            segments: their caches and counts.
            after_layer: called with the number of layers that are done, from 0 on; not in a native step.

        Returns:
            `(sequences, vocabulary)` in float32.
        """
        if self._native_step is not None and all(one.count == 1 and one.cache.capacity for one in segments):
            return self._native_step(embeddings, [segment.cache for segment in segments])
        x = self._run_layers(embeddings, segments, after_layer, prunes=True)
        for segment in segments:
            segment.cache.length += segment.count
        return self.logits(x)

    @torch.inference_mode()
    def branch(self, embeddings: torch.Tensor, cache: KVCache, parents: Sequence[int]) -> torch.Tensor:
        """Compute several continuations of a sequence together, without keeping them in its cache.

        Args:
            embeddings: `(tokens, hidden)` of a tree of tokens.
            cache: of the sequence; its length stays.
            parents: the index of the token that each token follows, -1 for those that follow the sequence.

        Returns:
            The logits after each token, `(tokens, vocabulary)` in float32.
        """
        tree = Tree.of(parents, self.device)
        return self.logits(self._run_layers(embeddings, [Segment(cache, len(parents), tree)], prunes=False))

    def _run_layers(
        self,
        x: torch.Tensor,
        segments: Sequence[Segment],
        after_layer: Callable[[int], None] | None = None,
        *,
        prunes: bool,
    ) -> torch.Tensor:
        """Run all layers on `(tokens, hidden)`; with `prunes` the last one only for the last token of each sequence.

        Keys and values are written to the caches, whose lengths stay.
        """
        cos, sin = self._rotations(segments)
        ends = [end - 1 for end in _ends(segments)]
        last = len(self.layers) - 1 if prunes and len(x) > len(ends) else None
        for index, layer in enumerate(self.layers):
            if after_layer is not None:
                after_layer(index)
            device = layer.attention_norm.device  # layers may be spread over several GPUs
            x, cos, sin = x.to(device), cos.to(device), sin.to(device)
            caches = [segment.cache.layers[index] for segment in segments]
            normed = self.normalized(x, layer.attention_norm)
            attended = self._attend(layer, normed, segments, caches, cos, sin, is_pruned=index == last)
            if index == last:
                x = x[ends]  # only the last token of each sequence is needed from here on
            x = self.feed_forward(layer, x + self.kernels.linear(attended, layer.output))
        return x.to(self.norm.device)

    def feed_forward(self, layer: LayerWeights, x: torch.Tensor) -> torch.Tensor:
        """Run the feed-forward half of a layer on `(tokens, hidden)`."""
        normed = self.normalized(x, layer.feed_forward_norm)
        gate, up = self.kernels.linears(normed, (layer.gate, layer.up))
        return x + self.kernels.linear(functional.silu(gate).mul_(up), layer.down)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `(tokens, vocabulary)`, in float32, of the last layer's output."""
        return self.kernels.linear(self.normalized(x, self.norm), self.head).float()

    def normalized(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Normalize rows `(tokens, hidden)` by one of the model's norms."""
        return self.kernels.normalize(x, weight, self.config.rms_norm_eps)

    def _rotations(self, segments: Sequence[Segment]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines `(tokens, head_dim)` of the new positions."""
        positions = [
            one.cache.length + (torch.arange(one.count, device=self.device) if one.tree is None else one.tree.depths)
            for one in segments
        ]
        return self.rotate_positions(torch.cat(positions))

    def rotate_positions(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines `(tokens, head_dim)` of positions `(tokens,)`."""
        angles = torch.outer(positions.float(), self._frequencies)
        angles = torch.cat((angles, angles), dim=1)
        dtype = self.kernels.compute_dtype
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def _attend(
        self,
        layer: LayerWeights,
        x: torch.Tensor,
        segments: Sequence[Segment],
        caches: Sequence[LayerCache],
        cos: torch.Tensor,
        sin: torch.Tensor,
        *,
        is_pruned: bool,
    ) -> torch.Tensor:
        """Attend in one layer; return `(tokens, hidden)`, if pruned only of the last token of each sequence."""
        config = self.config
        tokens = len(x)
        ends = _ends(segments)
        if is_pruned:  # queries of the last tokens only, keys and values of all
            last = [end - 1 for end in ends]
            (queries,) = self.kernels.linears(x[last], (layer.query,))
            keys, values = self.kernels.linears(x, (layer.key, layer.value))
        else:
            queries, keys, values = self.kernels.linears(x, (layer.query, layer.key, layer.value))
        keys = self.kernels.rotate(keys.view(tokens, config.kv_heads, config.head_dim), cos, sin)
        values = values.view(tokens, config.kv_heads, config.head_dim)
        if is_pruned:
            cos, sin = cos[last], sin[last]
        queries = self.kernels.rotate(queries.view(-1, config.heads, config.head_dim), cos, sin)
        keys, values = keys.to(self.cache_dtype).transpose(0, 1), values.to(self.cache_dtype).transpose(0, 1)
        for segment, cache, end in zip(segments, caches, ends, strict=True):
            new = slice(end - segment.count, end)
            cache.write(segment.cache.length, keys[:, new], values[:, new], segment.cache.reserve)
        scale = config.head_dim**-0.5
        if self.attention == "sdpa" and len(queries) == len(segments):
            lengths = [segment.cache.length + segment.count for segment in segments]
            states = [cache.buffers() for cache in caches]
            return self.kernels.attend(queries, states, lengths, scale).view(len(queries), -1)
        outputs = []
        for row, (segment, cache, end) in enumerate(zip(segments, caches, ends, strict=True)):
            own = queries[row : row + 1] if is_pruned else queries[end - segment.count : end]
            before = segment.cache.length + segment.count - len(own)
            outputs.append(_attend_many(own, cache, before, scale, self.attention, segment.tree))
        return torch.cat(outputs).reshape(len(queries), -1)


def _attend_many(
    queries: torch.Tensor, cache: LayerCache, before: int, scale: float, backend: str, tree: Tree | None
) -> torch.Tensor:
    """Causal attention for the new tokens of one sequence, or along a tree of them, `(tokens, heads, head_dim)`."""
    count = len(queries)
    keys, values = (states.to(queries.dtype) for states in cache.read(before + count))
    if backend == "flash_attention_2" and tree is None:
        from flash_attn import flash_attn_func

        # Its causal mask is aligned to the lower right: the last query sees the last key.
        flat: torch.Tensor = flash_attn_func(
            queries.unsqueeze(0), keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0),
            softmax_scale=scale, causal=True,
        )[0]  # fmt: skip
        return flat
    if tree is None:
        positions = torch.arange(before + count, device=queries.device)
        mask = positions <= positions[before:].unsqueeze(1)
    else:
        mask = functional.pad(tree.sees.to(queries.device), (before, 0), value=True)
    queries = queries.transpose(0, 1)
    if backend == "eager":
        repeats = len(queries) // len(keys)
        keys, values = keys.repeat_interleave(repeats, dim=0), values.repeat_interleave(repeats, dim=0)
        scores = (queries @ keys.transpose(1, 2) * scale).float().masked_fill(~mask, float("-inf"))
        return (scores.softmax(dim=-1).to(values.dtype) @ values).transpose(0, 1)
    output = functional.scaled_dot_product_attention(
        queries.unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=mask if before or tree is not None else None,
        is_causal=not before and tree is None,
        scale=scale,
        enable_gqa=len(queries) != len(keys),
    )
    return output[0].transpose(0, 1)


def _ends(segments: Sequence[Segment]) -> list[int]:
    """Return the end index of each sequence's tokens."""
    ends, end = [], 0
    for segment in segments:
        end += segment.count
        ends.append(end)
    return ends


def read_module(module: Any, config: DecoderConfig, kernels: Kernels, attention: str) -> Decoder:
    """Build a decoder that shares the weights of transformers' module; quantized layers do their own products."""
    model = module.model.language_model
    dtype = kernels.compute_dtype

    def linear(layer: Any) -> Linear:
        weight = layer.weight
        if type(layer) is torch.nn.Linear and type(weight.data) is torch.Tensor and layer.bias is None:
            return Weight.dense(weight.data)
        wanted = module.dtype
        return lambda x: layer(x.to(wanted)).to(dtype)

    layers = [
        LayerWeights(
            layer.input_layernorm.weight.data.to(dtype),
            linear(layer.self_attn.q_proj),
            linear(layer.self_attn.k_proj),
            linear(layer.self_attn.v_proj),
            linear(layer.self_attn.o_proj),
            layer.post_attention_layernorm.weight.data.to(dtype),
            linear(layer.mlp.gate_proj),
            linear(layer.mlp.up_proj),
            linear(layer.mlp.down_proj),
        )
        for layer in model.layers
    ]
    embeddings = model.embed_tokens.weight.data
    norm, head = model.norm.weight.data.to(dtype), linear(module.lm_head)
    return Decoder(config, embeddings, layers, norm, head, kernels, attention)

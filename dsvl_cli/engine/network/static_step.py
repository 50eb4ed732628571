"""A decode step of one sequence with static shapes, recorded as a CUDA graph and replayed.

On a GPU a step of a small model is bound by launching hundreds of kernels from Python; a CUDA graph launches all of
them at once. It needs fixed shapes and addresses: the position is a number on the device, the new key and value are
written at that index, and attention reads the whole buffer under a mask. When the buffer grows, by a few hundred
positions at a time, the step is recorded again. Only the token itself is copied back to the host.

Written for CUDA and not measured there. On a CPU the same step without recording returns the decoder's logits
(tests/engine/network/test_static_step.py).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.stored_weights import Weight
from dsvl_cli.engine.network.decoder import Decoder
from dsvl_cli.engine.network.kv_cache import KVCache, LayerCache
from dsvl_cli.engine.network.layers import LayerWeights

_WARM_UPS = 3  # runs before recording, as torch requires


def can_record(decoder: Decoder) -> bool:
    """Whether a decoder's step can be recorded: it is on one CUDA device, and no layer is a foreign module."""
    linears = [linear for layer in decoder.layers for linear in layer.linears().values()]
    weights = [linear for linear in (*linears, decoder.head) if isinstance(linear, Weight)]
    return (
        decoder.device.type == "cuda"
        and decoder.attention == "sdpa"
        and len(weights) == len(linears) + 1
        and {weight.data.device for weight in weights} == {decoder.device}
    )


class StaticStep:
    """Appends one token at a time to one cache.

    Args:
        decoder: the language model.
        cache: holds at least one position.
        record: record and replay a CUDA graph; otherwise each step runs directly.
    """

    def __init__(self, decoder: Decoder, cache: KVCache, *, record: bool) -> None:
        self.cache = cache
        self._decoder = decoder
        self._record = record
        self._token = torch.zeros(1, dtype=torch.long, device=decoder.device)
        self._position = torch.zeros(1, dtype=torch.long, device=decoder.device)
        self._capacity = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits = torch.empty(0)

    @torch.inference_mode()
    def __call__(self, token_id: int) -> torch.Tensor:
        """Append a token; return the logits of the next one, `(1, vocabulary)`, valid until the next call."""
        self.cache.ensure_room(self.cache.length + 1)
        self._token.fill_(token_id)
        self._position.fill_(self.cache.length)
        if not self._record:
            self._logits = self._run()
        else:
            if self._graph is None or self._capacity != self.cache.capacity:
                self._capture()
            assert self._graph is not None
            self._graph.replay()
        self.cache.length += 1
        return self._logits

    def _capture(self) -> None:
        """Record the step; the warm-up runs write only the position that the step itself writes next."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._logits = self._run()
        self._graph, self._capacity = graph, self.cache.capacity

    def _run(self) -> torch.Tensor:
        decoder, kernels = self._decoder, self._decoder.kernels
        cos, sin = decoder.rotate_positions(self._position)
        mask = torch.arange(self.cache.capacity, device=decoder.device) <= self._position
        x = decoder.embed(self._token)
        for layer, cache in zip(decoder.layers, self.cache.layers, strict=True):
            normed = decoder.normalized(x, layer.attention_norm)
            attended = self._attend(layer, normed, cache, cos, sin, mask)
            x = decoder.feed_forward(layer, x + kernels.linear(attended, layer.output))
        return decoder.logits(x)

    def _attend(
        self,
        layer: LayerWeights,
        x: torch.Tensor,
        cache: LayerCache,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        config, kernels = self._decoder.config, self._decoder.kernels
        keys, values = cache.buffers()
        query, key, value = kernels.linears(x, (layer.query, layer.key, layer.value))
        query = kernels.rotate(query.view(1, config.heads, config.head_dim), cos, sin)
        key = kernels.rotate(key.view(1, config.kv_heads, config.head_dim), cos, sin)
        value = value.view(1, config.kv_heads, config.head_dim)
        keys.index_copy_(1, self._position, key.transpose(0, 1).to(keys.dtype))
        values.index_copy_(1, self._position, value.transpose(0, 1).to(values.dtype))
        output = functional.scaled_dot_product_attention(
            query.transpose(0, 1).unsqueeze(0),
            keys.to(query.dtype).unsqueeze(0),
            values.to(query.dtype).unsqueeze(0),
            attn_mask=mask.view(1, 1, 1, -1),
            scale=config.head_dim**-0.5,
            enable_gqa=config.heads != config.kv_heads,
        )
        return output.view(1, -1)

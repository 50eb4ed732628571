"""Linear layers and single-query attention behind one small interface, and its reference in torch.

`PlainKernels` runs on every device. `NativeKernels` (native_kernels.py) replaces on CPUs what is slow there. Weights
stay in their stored format of 16, 8 or 4 bits, often memory-mapped from the file. For products that torch computes they
are dequantized or upcast one at a time, into a buffer that all layers share.

How a product is computed depends on the kind of weight and the number of rows; the routes are measured (measured.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.questions import ShapeClass
from dsvl_cli.engine.kernels.stored_weights import Kind, Linear, Weight, dequantize, quantize

FEW_ROWS = 40  # more are a prompt

KeysAndValues = tuple[torch.Tensor, torch.Tensor]


class Route(StrEnum):
    """How a product is computed: by compiled code, or by torch in float32 or bfloat16."""

    NATIVE = "native"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


Routes = Mapping[tuple[Kind, ShapeClass], Route]


def shape_class(rows: int) -> ShapeClass:
    """Classify a product by its number of rows."""
    if rows == 1:
        return ShapeClass.ONE_ROW
    return ShapeClass.FEW_ROWS if rows <= FEW_ROWS else ShapeClass.PROMPT


class Kernels(Protocol):
    """The operations of a backend; activations are in `compute_dtype`."""

    name: str
    compute_dtype: torch.dtype

    def linear(self, x: torch.Tensor, weight: Linear) -> torch.Tensor:
        """Multiply `(rows, in_features)` by a weight; returns `(rows, out_features)`."""
        ...

    def linears(self, x: torch.Tensor, weights: Sequence[Linear]) -> list[torch.Tensor]:
        """Multiply the same rows by several weights."""
        ...

    def normalize(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """RMS normalization of rows `(rows, hidden)`, scaled by `(hidden,)`."""
        ...

    def rotate(self, states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Apply rotary embeddings `(tokens, head_dim)` to `(tokens, heads, head_dim)`; may overwrite the states.

        Su et al., "RoFormer", 2021; the two halves of a head are paired, as in transformers.
        """
        ...

    def quantize(self, weight: torch.Tensor, kind: Kind) -> Weight:
        """Quantize a weight `(out_features, in_features)` to 8 or 4 bits; in-features must be a multiple of 64."""
        ...

    def attend(
        self, queries: torch.Tensor, caches: Sequence[KeysAndValues], lengths: Sequence[int], scale: float
    ) -> torch.Tensor:
        """Attention of one query each of several sequences over the first positions of their caches.

        Args:
            queries: `(sequences, heads, head_dim)`.
            caches: one layer's keys and values of each sequence, each `(kv_heads, capacity, head_dim)`; `heads` is a
                multiple of `kv_heads`.
            lengths: the number of valid positions of each sequence.
            scale: factor of the attention scores.

        Returns:
            `(sequences, heads, head_dim)`.
        """
        ...


class PlainKernels:
    """All operations in torch.

    Args:
        compute_dtype: of activations and products.
        routes: how to multiply weights of another dtype; float32 by default. Only for a `compute_dtype` of float32.
    """

    name = "torch"

    def __init__(self, compute_dtype: torch.dtype = torch.float32, routes: Routes | None = None) -> None:
        self.compute_dtype = compute_dtype
        self.routes = dict(routes or {})
        self._shared = torch.empty(0)

    def route(self, kind: Kind, rows: int) -> Route:
        """Return how a product of some rows is computed."""
        return self.routes.get((kind, shape_class(rows))) or self._default_route(kind, rows)

    def _default_route(self, kind: Kind, rows: int) -> Route:
        return Route.FLOAT32

    def linear(self, x: torch.Tensor, weight: Linear) -> torch.Tensor:
        """Multiply."""
        return self.linears(x, [weight])[0]

    def linears(self, x: torch.Tensor, weights: Sequence[Linear]) -> list[torch.Tensor]:
        """Multiply one weight after the other."""
        return [self._linear(x, weight) for weight in weights]

    def _linear(self, x: torch.Tensor, weight: Linear) -> torch.Tensor:
        if not isinstance(weight, Weight):
            return weight(x)
        if weight.data.dtype == x.dtype:
            return functional.linear(x, weight.data)
        in_bfloat16 = self.route(weight.kind, len(x)) is Route.BFLOAT16
        if in_bfloat16 and weight.kind is Kind.BFLOAT16:
            return functional.linear(x.to(weight.data.dtype), weight.data).to(x.dtype)
        wide = self.dequantize(weight, torch.bfloat16 if in_bfloat16 else self.compute_dtype)
        return functional.linear(x.to(wide.dtype), wide).to(x.dtype)

    def normalize(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Normalize."""
        return functional.rms_norm(x, weight.shape, weight, epsilon)

    def rotate(self, states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Rotate."""
        half = states.shape[-1] // 2
        rotated = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
        return states * cosines.unsqueeze(1) + rotated * sines.unsqueeze(1)

    def dequantize(self, weight: Weight, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the weight as `(out_features, in_features)`, in a buffer that the next call overwrites.

        The dtype is `compute_dtype` by default. 16-bit weights are upcast.
        """
        wide = self._buffer(weight, dtype or self.compute_dtype)
        return wide.copy_(weight.data if weight.scales is None else dequantize(weight))

    def quantize(self, weight: torch.Tensor, kind: Kind) -> Weight:
        """Quantize a weight `(out_features, in_features)` to 8 or 4 bits; in-features must be a multiple of 64."""
        return quantize(weight, kind)

    def _buffer(self, weight: Weight, dtype: torch.dtype) -> torch.Tensor:
        size = weight.shape[0] * weight.shape[1]
        if self._shared.nbytes < size * dtype.itemsize:
            self._shared = torch.empty(size * dtype.itemsize, dtype=torch.uint8, device=weight.data.device)
        return self._shared[: size * dtype.itemsize].view(dtype).view(weight.shape)

    def attend(
        self, queries: torch.Tensor, caches: Sequence[KeysAndValues], lengths: Sequence[int], scale: float
    ) -> torch.Tensor:
        """Attend one sequence at a time."""
        outputs = []
        for query, cache, length in zip(queries, caches, lengths, strict=True):
            keys, values = (states[:, :length].to(query.dtype).unsqueeze(0) for states in cache)
            grouped = query.shape[0] != keys.shape[1]
            outputs.append(
                functional.scaled_dot_product_attention(
                    query[None, :, None], keys, values, scale=scale, enable_gqa=grouped
                )[0, :, 0]
            )
        return torch.stack(outputs)

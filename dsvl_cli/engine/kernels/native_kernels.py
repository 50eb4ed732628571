"""The compiled kernels: products, norms, rotary embeddings and single-query attention on a CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from dsvl_cli.engine.kernels.kernels import FEW_ROWS, KeysAndValues, PlainKernels, Route, Routes
from dsvl_cli.engine.kernels.native.binding import NativeLinear, Scratch, address, addresses, bind, numbers
from dsvl_cli.engine.kernels.stored_weights import FLOAT_KINDS, Kind, Linear, Weight, empty_weight

_COLUMNS = 8  # compiled products need in-features that are a multiple of this
_TOGETHER = 8  # weights in a call


class NativeKernels(PlainKernels):
    """Compiled code where it is faster, torch for the rest. For float32 activations on a CPU.

    In float32 both agree up to rounding; with 8- and 4-bit weights the activations are quantized too (native/panels.h).

    Args:
        library: the compiled kernels.
        routes: how to multiply; by default all products are native but those of prompts with 16- and 32-bit weights.
    """

    name = "native"

    def __init__(self, library: ctypes.CDLL, routes: Routes | None = None) -> None:
        super().__init__(torch.float32, routes)
        self.library = bind(library)
        self._scratch = Scratch()

    def _default_route(self, kind: Kind, rows: int) -> Route:
        return Route.FLOAT32 if kind in FLOAT_KINDS.values() and rows > FEW_ROWS else Route.NATIVE

    def linears(self, x: torch.Tensor, weights: Sequence[Linear]) -> list[torch.Tensor]:
        """Multiply; weights that are multiplied natively share one call, so the threads start once."""
        rows, columns = x.shape
        native = [
            weight
            for weight in weights
            if isinstance(weight, Weight)
            and weight.shape[1] == columns
            and self.route(weight.kind, rows) is Route.NATIVE
        ]
        if len(native) < len(weights) or not 0 < len(native) <= _TOGETHER or columns % _COLUMNS or not rows:
            return super().linears(x, weights)
        x = x.contiguous()
        results = [torch.empty((rows, weight.shape[0])) for weight in native]
        self.library.dsvl_linear(
            len(native),
            (NativeLinear * len(native))(*(NativeLinear.of(weight) for weight in native)),
            address(x),
            rows,
            addresses(results),
            self._scratch.at_least(self.library.dsvl_scratch(rows, columns)),
            torch.get_num_threads(),
        )
        return results

    def normalize(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Normalize."""
        if len(x) > FEW_ROWS:
            return super().normalize(x, weight, epsilon)
        x = x.contiguous()
        y = torch.empty_like(x)
        self.library.dsvl_normalize(address(x), address(weight), epsilon, *x.shape, address(y))
        return y

    def rotate(self, states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Rotate in place."""
        states = states.contiguous()
        self.library.dsvl_rotate(address(states), address(cosines), address(sines), *states.shape)
        return states

    def dequantize(self, weight: Weight, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Dequantize."""
        if weight.scales is None:
            return super().dequantize(weight, dtype)
        wide = self._buffer(weight, dtype or self.compute_dtype)
        self.library.dsvl_dequantize(
            int(weight.kind),
            address(weight.data),
            address(weight.scales),
            *weight.shape,
            int(FLOAT_KINDS[wide.dtype]),
            address(wide),
            torch.get_num_threads(),
        )
        return wide

    def quantize(self, weight: torch.Tensor, kind: Kind) -> Weight:
        """Quantize."""
        wide = weight.float().contiguous()
        outs, columns = wide.shape
        packed = empty_weight(kind, outs, columns)
        assert packed.scales is not None
        self.library.dsvl_pack(
            int(kind),
            address(wide),
            outs,
            columns,
            address(packed.data),
            address(packed.scales),
            torch.get_num_threads(),
        )
        return packed

    def attend(
        self, queries: torch.Tensor, caches: Sequence[KeysAndValues], lengths: Sequence[int], scale: float
    ) -> torch.Tensor:
        """Attend; the threads share all heads of all sequences."""
        sequences, heads, head_dim = queries.shape
        dtype = caches[0][0].dtype
        if head_dim % 8 or dtype not in FLOAT_KINDS:
            return super().attend(queries, caches, lengths, scale)
        queries = queries.contiguous()
        out = torch.empty_like(queries)
        self.library.dsvl_attend(
            int(FLOAT_KINDS[dtype]),
            address(queries),
            addresses([keys for keys, _ in caches]),
            addresses([values for _, values in caches]),
            numbers(lengths),
            numbers([keys.shape[1] for keys, _ in caches]),
            sequences,
            heads,
            caches[0][0].shape[0],
            head_dim,
            scale,
            address(out),
            torch.get_num_threads(),
        )
        return out

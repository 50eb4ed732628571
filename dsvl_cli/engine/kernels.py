"""Linear layers and attention of one query, behind one small interface.

`PlainKernels` is torch alone, on every device: the reference. `NativeKernels` takes over what bounds a decode step on a
CPU: products of few rows and attention, compiled from native/kernels.c. Both agree exactly in float32 up to rounding;
in 8 and 4 bits the native ones bring the activations to 8 bits too (tests/engine/test_kernels.py).

Weights stay as they are stored, in 16, 8 or 4 bits, and often in the file that is mapped into memory. Products of many
rows (a prompt) widen one layer at a time into a buffer that all layers share.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch.nn import functional

from dsvl_cli.engine.kv_cache import LayerCache
from dsvl_cli.engine.native.compiler import load_library
from dsvl_cli.engine.progress import Choice

GROUP = 32  # int4 weights that share a scale
_FEW_PLAIN_ROWS = 4  # up to so many torch multiplies in bfloat16 sooner than it widens, on any CPU
_FEW_ROWS = 40  # up to so many a row at a time is faster than widening the weights for them


class Kind(IntEnum):
    """How weights are stored; the numbers are those of kernels.c."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3
    FLOAT16 = 4  # always widened


@dataclass(frozen=True, slots=True)
class Weight:
    """The weight of a linear layer without a bias.

    Attributes:
        kind: how `data` is stored.
        data: `(out_features, in_features)`; of INT4 two weights a byte, `(out_features, in_features / 2)`.
        scales: INT8: `(out_features,)` in float32; INT4: `(out_features, in_features / 32)` in bfloat16.
        shape: `(out_features, in_features)`.
    """

    kind: Kind
    data: torch.Tensor
    scales: torch.Tensor | None
    shape: tuple[int, int]

    @classmethod
    def dense(cls, data: torch.Tensor) -> Weight:
        """Take a weight of 16 or 32 bits as it is."""
        kinds = {torch.float32: Kind.FLOAT32, torch.bfloat16: Kind.BFLOAT16, torch.float16: Kind.FLOAT16}
        return cls(kinds[data.dtype], data, None, (data.shape[0], data.shape[1]))

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return self.data.nbytes + (self.scales.nbytes if self.scales is not None else 0)


# A linear layer: stored here, or a module of another library that multiplies itself.
Linear = Weight | Callable[[torch.Tensor], torch.Tensor]


class Kernels(Protocol):
    """What a backend does; activations are `compute_dtype`."""

    name: str
    compute_dtype: torch.dtype

    def linear(self, x: torch.Tensor, weight: Linear) -> torch.Tensor:
        """Multiply `(rows, in_features)` with a weight: `(rows, out_features)`."""
        ...

    def quantize(self, weight: torch.Tensor, kind: Kind) -> Weight:
        """Bring a weight `(out_features, in_features)` to 8 or 4 bits; in-features are a multiple of 32."""
        ...

    def attend(
        self, queries: torch.Tensor, caches: Sequence[LayerCache], lengths: Sequence[int], scale: float
    ) -> torch.Tensor:
        """Attention of one query each of several sequences over the first positions of their caches.

        Args:
            queries: `(sequences, heads, head_dim)`.
            caches: one layer's, one for each sequence; their heads divide the queries'.
            lengths: the positions that count.
            scale: of the products.

        Returns:
            `(sequences, heads, head_dim)`.
        """
        ...


class PlainKernels:
    """Everything in torch.

    Args:
        compute_dtype: of activations and products.
        native_bf16: whether the device multiplies bfloat16 itself; else such weights are widened to multiply them.
    """

    name = "torch"

    def __init__(self, compute_dtype: torch.dtype = torch.float32, *, native_bf16: bool = False) -> None:
        self.compute_dtype = compute_dtype
        self.native_bf16 = native_bf16
        self._room = torch.empty(0)

    def linear(self, x: torch.Tensor, weight: Linear) -> torch.Tensor:
        """Multiply."""
        if not isinstance(weight, Weight):
            return weight(x)
        if weight.data.dtype == x.dtype:
            return functional.linear(x, weight.data)
        if weight.kind is Kind.BFLOAT16 and (self.native_bf16 or len(x) <= _FEW_PLAIN_ROWS):
            return functional.linear(x.to(weight.data.dtype), weight.data).to(x.dtype)
        return functional.linear(x, self.widen(weight))

    def widen(self, weight: Weight) -> torch.Tensor:
        """Give the weight as `(out_features, in_features)` of `compute_dtype`, in a buffer until the next call."""
        wide = self._buffer(weight)
        if weight.scales is None:
            return wide.copy_(weight.data)
        return wide.copy_(dequantize(weight))

    def quantize(self, weight: torch.Tensor, kind: Kind) -> Weight:
        """Bring a weight `(out_features, in_features)` to 8 or 4 bits; in-features are a multiple of 32."""
        return quantize(weight, kind)

    def _buffer(self, weight: Weight) -> torch.Tensor:
        size = weight.shape[0] * weight.shape[1]
        if self._room.numel() < size:
            self._room = torch.empty(size, dtype=self.compute_dtype, device=weight.data.device)
        return self._room[:size].view(weight.shape)

    def attend(
        self, queries: torch.Tensor, caches: Sequence[LayerCache], lengths: Sequence[int], scale: float
    ) -> torch.Tensor:
        """Attend, a sequence at a time."""
        outputs = []
        for query, cache, length in zip(queries, caches, lengths, strict=True):
            keys, values = (states.to(query.dtype).unsqueeze(0) for states in cache.read(length))
            grouped = query.shape[0] != keys.shape[1]
            outputs.append(
                functional.scaled_dot_product_attention(
                    query[None, :, None], keys, values, scale=scale, enable_gqa=grouped
                )[0, :, 0]
            )
        return torch.stack(outputs)


class NativeKernels(PlainKernels):
    """Few rows and single queries in compiled code; the rest in torch. Activations are float32, on the CPU."""

    name = "native"

    def __init__(self, library: ctypes.CDLL, *, native_bf16: bool = False) -> None:
        super().__init__(torch.float32, native_bf16=native_bf16)
        self._library = library
        self._bytes = torch.empty(0, dtype=torch.int8)

    def linear(self, x: torch.Tensor, weight: Linear) -> torch.Tensor:
        """Multiply."""
        if not isinstance(weight, Weight) or len(x) > _FEW_ROWS or weight.shape[1] % GROUP or weight.kind > Kind.INT4:
            return super().linear(x, weight)
        if weight.kind is Kind.FLOAT32 and len(x) > 1:
            return functional.linear(x, weight.data)
        rows, (outs, columns) = len(x), weight.shape
        x = x.contiguous()
        y = torch.empty((rows, outs))
        room = 0 if weight.scales is None else rows * columns * 5 // 4
        if self._bytes.numel() < room:
            self._bytes = torch.empty(room, dtype=torch.int8)
        self._library.dsvl_linear(
            int(weight.kind),
            _address(x),
            rows,
            _address(weight.data),
            None if weight.scales is None else _address(weight.scales),
            _address(self._bytes),
            ctypes.c_int64(outs),
            ctypes.c_int64(columns),
            _address(y),
            torch.get_num_threads(),
        )
        return y

    def widen(self, weight: Weight) -> torch.Tensor:
        """Widen."""
        if weight.scales is None or weight.shape[1] % GROUP:
            return super().widen(weight)
        wide = self._buffer(weight)
        outs, columns = weight.shape
        self._library.dsvl_widen(
            int(weight.kind),
            _address(weight.data),
            _address(weight.scales),
            ctypes.c_int64(outs),
            ctypes.c_int64(columns),
            _address(wide),
            torch.get_num_threads(),
        )
        return wide

    def quantize(self, weight: torch.Tensor, kind: Kind) -> Weight:
        """Quantize."""
        wide = weight.float().contiguous()
        outs, columns = wide.shape
        if kind is Kind.INT8:
            data, scales = torch.empty((outs, columns), dtype=torch.int8), torch.empty(outs)
        else:
            data = torch.empty((outs, columns // 2), dtype=torch.uint8)
            scales = torch.empty((outs, columns // GROUP), dtype=torch.bfloat16)
        self._library.dsvl_pack(
            int(kind),
            _address(wide),
            ctypes.c_int64(outs),
            ctypes.c_int64(columns),
            _address(data),
            _address(scales),
            torch.get_num_threads(),
        )
        return Weight(kind, data, scales, (outs, columns))

    def attend(
        self, queries: torch.Tensor, caches: Sequence[LayerCache], lengths: Sequence[int], scale: float
    ) -> torch.Tensor:
        """Attend; all heads of all sequences share the threads."""
        sequences, heads, head_dim = queries.shape
        kept = [(cache.keys, cache.values) for cache in caches if cache.keys is not None and cache.values is not None]
        dtype = kept[0][0].dtype
        if head_dim % 8 or dtype not in (torch.float32, torch.bfloat16):
            return super().attend(queries, caches, lengths, scale)
        queries = queries.contiguous()
        out = torch.empty_like(queries)
        pointers, numbers = ctypes.c_void_p * sequences, ctypes.c_int64 * sequences
        self._library.dsvl_attend(
            int(Kind.FLOAT32 if dtype == torch.float32 else Kind.BFLOAT16),
            _address(queries),
            pointers(*(keys.data_ptr() for keys, _ in kept)),
            pointers(*(values.data_ptr() for _, values in kept)),
            numbers(*lengths),
            numbers(*(keys.shape[1] for keys, _ in kept)),
            ctypes.c_int64(sequences),
            ctypes.c_int64(heads),
            ctypes.c_int64(kept[0][0].shape[0]),
            ctypes.c_int64(head_dim),
            ctypes.c_float(scale),
            _address(out),
            torch.get_num_threads(),
        )
        return out


def choose_kernels(device: str, dtype: torch.dtype, *, native_bf16: bool) -> tuple[Kernels, Choice]:
    """Choose the backend, with its reason.

    On a CPU activations are float32 whatever the weights are: they cost little, and the answer is that of a float32
    model with the weights' values. Elsewhere they are of the weights' dtype.
    """
    if device != "cpu":
        return PlainKernels(dtype, native_bf16=True), Choice("kernels", "torch", f"the device is {device}")
    compiled = load_library()
    if compiled.library is None:
        kernels: Kernels = PlainKernels(native_bf16=native_bf16)
        return kernels, Choice("kernels", "torch", f"no native ones: {compiled.reason}")
    native = NativeKernels(compiled.library, native_bf16=native_bf16)
    fault = find_fault(native)
    if fault is not None:
        return PlainKernels(native_bf16=native_bf16), Choice("kernels", "torch", f"the native ones fail in {fault}")
    return native, Choice("kernels", "native", compiled.reason)


def find_fault(kernels: Kernels) -> str | None:
    """Compare a backend with the plain one on a small problem; name what disagrees, None where nothing does."""
    generator = torch.Generator().manual_seed(0)
    plain = PlainKernels()
    dense = torch.randn((36, 288), generator=generator)
    x = torch.randn((3, 288), generator=generator)
    for weight in (
        Weight.dense(dense),
        Weight.dense(dense.bfloat16()),
        quantize(dense, Kind.INT8),
        quantize(dense, Kind.INT4),
    ):
        exact = weight.kind is Kind.FLOAT32 or (weight.kind is Kind.BFLOAT16 and isinstance(kernels, NativeKernels))
        tolerance = 1e-4 if exact else 0.05
        for rows in (1, 3):
            wanted, found = functional.linear(x[:rows], plain.widen(weight)), kernels.linear(x[:rows], weight)
            if not torch.allclose(wanted, found, rtol=0, atol=tolerance * float(wanted.abs().max())):
                return f"{weight.kind.name} products"
    query = torch.randn((1, 4, 32), generator=generator)
    cache = LayerCache()
    states = torch.randn((2, 2, 70, 32), generator=generator)
    for dtype in (torch.float32, torch.bfloat16):
        cache.keys = cache.values = None
        cache.write(0, states[0].to(dtype), states[1].to(dtype), 70)
        wanted, found = (one.attend(query, [cache], [67], 0.2) for one in (plain, kernels))
        if not torch.allclose(wanted, found, atol=1e-4):
            return "attention"
    return None


def quantize(weight: torch.Tensor, kind: Kind) -> Weight:
    """Bring a weight `(out_features, in_features)` to 8 or 4 bits.

    INT8: -127 to 127, one scale a row. INT4: -8 to 7 in groups of 32 along a row; of each group the weight that is
    largest becomes -8 or a little less, as in llama.cpp's q4_0, so that all 16 values are used; in-features are a
    multiple of 32.
    """
    wide = weight.float()
    shape = (weight.shape[0], weight.shape[1])
    if kind is Kind.INT8:
        scales = wide.abs().amax(dim=1).div_(127).clamp_(min=1e-12)
        return Weight(kind, wide.div(scales.unsqueeze(1)).round_().to(torch.int8), scales, shape)
    groups = wide.view(shape[0], -1, GROUP)
    scales = _choose_scales(groups)
    codes = groups.div(scales.float().unsqueeze(2)).round_().clamp_(-8, 7).add_(8).to(torch.uint8)
    packed = codes[..., :16] | codes[..., 16:] << 4
    return Weight(kind, packed.reshape(shape[0], -1), scales, shape)


def _choose_scales(groups: torch.Tensor) -> torch.Tensor:
    """Choose each group's scale `(out_features, groups)` in bfloat16: of a few, that of the least squared error."""
    places = groups.abs().argmax(dim=2, keepdim=True)
    largest = groups.gather(2, places).squeeze(2)
    best = torch.full_like(largest, float("inf"))
    chosen = torch.ones_like(largest, dtype=torch.bfloat16)
    for steps in (-8.0, -8.5, -7.5, -9.0, 7.5):
        scales = (largest / steps).bfloat16()
        scales = torch.where(scales == 0, torch.full_like(scales, 1e-12), scales)
        wide = scales.float().unsqueeze(2)
        error = groups.div(wide).round_().clamp_(-8, 7).mul_(wide).sub_(groups).square_().sum(dim=2)
        better = error < best
        best = torch.where(better, error, best)
        chosen = torch.where(better, scales, chosen)
    return chosen


def dequantize(weight: Weight) -> torch.Tensor:
    """Bring a weight of 8 or 4 bits back to `(out_features, in_features)` in float32."""
    assert weight.scales is not None
    if weight.kind is Kind.INT8:
        return weight.data.float() * weight.scales.unsqueeze(1)
    packed = weight.data.view(weight.shape[0], -1, 16)
    codes = torch.cat((packed & 15, packed >> 4), dim=2).float().sub_(8)
    return codes.mul_(weight.scales.float().unsqueeze(2)).view(weight.shape)


def _address(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())

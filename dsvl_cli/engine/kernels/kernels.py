"""Linear layers and single-query attention behind one small interface.

`PlainKernels` is the reference: torch only, on every device. `NativeKernels` replaces what dominates a decode step on a
CPU, products of few rows and attention, with code compiled from native/kernels.c. In float32 both agree up to rounding;
with 8- and 4-bit weights the native kernels quantize the activations to 8 bits too (tests/engine/kernels/
test_kernels.py).

Weights stay in their stored format of 16, 8 or 4 bits, often memory-mapped from the file. For products of many rows (a
prompt), one layer at a time is dequantized into a buffer that all layers share: to bfloat16 if the CPU has native
bfloat16 products, else to float32. CPUs with native 8-bit products use them for 8-bit weights (integer_products.py).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.integer_products import is_slow, multiply_quantized, quantize_rows
from dsvl_cli.engine.kernels.native.compiler import load_library
from dsvl_cli.engine.kernels.stored_weights import FLOAT_KINDS, GROUP, Kind, Linear, Weight, dequantize, quantize
from dsvl_cli.engine.progress import Choice

if TYPE_CHECKING:
    from dsvl_cli.engine.machine.detect import Machine

_COLUMNS = 32  # compiled products need in-features that are a multiple of this
_FEW_PLAIN_ROWS = 4  # up to this many, torch's bfloat16 product is faster than an upcast, on any CPU
_FEW_ROWS = 40  # up to this many, row by row is faster than dequantizing the weights first

KeysAndValues = tuple[torch.Tensor, torch.Tensor]


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
        native_bf16: whether the device has native bfloat16 products; otherwise bfloat16 weights are upcast first.
        native_int8: whether the CPU has native 8-bit products; a prompt is then quantized to 8 bits for INT8 weights.
    """

    name = "torch"

    def __init__(
        self, compute_dtype: torch.dtype = torch.float32, *, native_bf16: bool = False, native_int8: bool = False
    ) -> None:
        self.compute_dtype = compute_dtype
        self.native_bf16 = native_bf16
        self.native_int8 = native_int8
        # What weights of kinds other than bfloat16 are dequantized to.
        self._wide_dtype = torch.bfloat16 if native_bf16 and compute_dtype == torch.float32 else compute_dtype
        self._shared = torch.empty(0)

    def linear(self, x: torch.Tensor, weight: Linear) -> torch.Tensor:
        """Multiply."""
        return self.linears(x, [weight])[0]

    def linears(self, x: torch.Tensor, weights: Sequence[Linear]) -> list[torch.Tensor]:
        """Multiply one weight after the other."""
        if not self.native_int8 or len(x) <= _FEW_ROWS:
            return [self._linear(x, weight) for weight in weights]
        rows, products = None, []
        for weight in weights:
            if isinstance(weight, Weight) and weight.kind is Kind.INT8:
                rows = rows or quantize_rows(x)
                products.append(multiply_quantized(rows, weight))
            else:
                products.append(self._linear(x, weight))
        return products

    def _linear(self, x: torch.Tensor, weight: Linear) -> torch.Tensor:
        if not isinstance(weight, Weight):
            return weight(x)
        if weight.data.dtype == x.dtype:
            return functional.linear(x, weight.data)
        if weight.kind is Kind.BFLOAT16 and (self.native_bf16 or len(x) <= _FEW_PLAIN_ROWS):
            return functional.linear(x.to(weight.data.dtype), weight.data).to(x.dtype)
        wide = self.dequantize(weight)
        return functional.linear(x.to(wide.dtype), wide).to(x.dtype)

    def normalize(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Normalize."""
        return functional.rms_norm(x, weight.shape, weight, epsilon)

    def rotate(self, states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Rotate."""
        half = states.shape[-1] // 2
        rotated = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
        return states * cosines.unsqueeze(1) + rotated * sines.unsqueeze(1)

    def dequantize(self, weight: Weight) -> torch.Tensor:
        """Return the weight as `(out_features, in_features)`, in a buffer that the next call overwrites.

        The dtype is `compute_dtype`, or bfloat16 where the CPU has native bfloat16 products. 16-bit weights are upcast.
        """
        wide = self._buffer(weight)
        if weight.scales is None:
            return wide.copy_(weight.data)
        return wide.copy_(dequantize(weight))

    def quantize(self, weight: torch.Tensor, kind: Kind) -> Weight:
        """Quantize a weight `(out_features, in_features)` to 8 or 4 bits; in-features must be a multiple of 64."""
        return quantize(weight, kind)

    def _buffer(self, weight: Weight) -> torch.Tensor:
        size = weight.shape[0] * weight.shape[1]
        dtype = self.compute_dtype if weight.kind is Kind.BFLOAT16 else self._wide_dtype
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


class NativeKernels(PlainKernels):
    """Compiled code for few rows and single queries, torch for the rest. For float32 activations on a CPU."""

    name = "native"

    def __init__(self, library: ctypes.CDLL, *, native_bf16: bool = False, native_int8: bool = False) -> None:
        super().__init__(torch.float32, native_bf16=native_bf16, native_int8=native_int8)
        self._library = library
        self._scratch = torch.empty(0, dtype=torch.int8)

    def linears(self, x: torch.Tensor, weights: Sequence[Linear]) -> list[torch.Tensor]:
        """Multiply; weights of the same kind share one call, so the work is split among the threads once."""
        rows = len(x)
        stored = [weight for weight in weights if isinstance(weight, Weight)]
        kind = stored[0].kind if stored else None
        if (
            rows > _FEW_ROWS
            or kind is None
            or len(stored) < len(weights)
            or any(weight.kind is not kind for weight in stored)
            or (kind is Kind.FLOAT32 and rows > 1)
            or x.shape[1] % _COLUMNS
        ):
            return super().linears(x, weights)
        x = x.contiguous()
        count, columns = len(stored), x.shape[1]
        results = [torch.empty((rows, weight.shape[0])) for weight in stored]
        size = rows * columns * 5 // 4 if kind in (Kind.INT8, Kind.INT4) else 0
        if self._scratch.numel() < size:
            self._scratch = torch.empty(size, dtype=torch.int8)
        pointers = ctypes.c_void_p * count
        scales = [None if weight.scales is None else weight.scales.data_ptr() for weight in stored]
        self._library.dsvl_linear(
            int(kind),
            _address(x),
            rows,
            ctypes.c_int64(columns),
            count,
            pointers(*(weight.data.data_ptr() for weight in stored)),
            pointers(*scales),
            (ctypes.c_int64 * count)(*(weight.shape[0] for weight in stored)),
            pointers(*(result.data_ptr() for result in results)),
            _address(self._scratch),
            torch.get_num_threads(),
        )
        return results

    def normalize(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Normalize."""
        if len(x) > _FEW_ROWS:
            return super().normalize(x, weight, epsilon)
        x = x.contiguous()
        y = torch.empty_like(x)
        rows, columns = (ctypes.c_int64(size) for size in x.shape)
        self._library.dsvl_normalize(_address(x), _address(weight), ctypes.c_float(epsilon), rows, columns, _address(y))
        return y

    def rotate(self, states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Rotate in place."""
        states = states.contiguous()
        sizes = (ctypes.c_int64(size) for size in states.shape)
        self._library.dsvl_rotate(_address(states), _address(cosines), _address(sines), *sizes)
        return states

    def dequantize(self, weight: Weight) -> torch.Tensor:
        """Dequantize."""
        if weight.scales is None:
            return super().dequantize(weight)
        wide = self._buffer(weight)
        outs, columns = weight.shape
        self._library.dsvl_dequantize(
            int(weight.kind),
            _address(weight.data),
            _address(weight.scales),
            ctypes.c_int64(outs),
            ctypes.c_int64(columns),
            _address(wide),
            int(wide.dtype == torch.bfloat16),
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
        self, queries: torch.Tensor, caches: Sequence[KeysAndValues], lengths: Sequence[int], scale: float
    ) -> torch.Tensor:
        """Attend; the threads share all heads of all sequences."""
        sequences, heads, head_dim = queries.shape
        dtype = caches[0][0].dtype
        if head_dim % 8 or dtype not in FLOAT_KINDS:
            return super().attend(queries, caches, lengths, scale)
        queries = queries.contiguous()
        out = torch.empty_like(queries)
        pointers, numbers = ctypes.c_void_p * sequences, ctypes.c_int64 * sequences
        self._library.dsvl_attend(
            int(FLOAT_KINDS[dtype]),
            _address(queries),
            pointers(*(keys.data_ptr() for keys, _ in caches)),
            pointers(*(values.data_ptr() for _, values in caches)),
            numbers(*lengths),
            numbers(*(keys.shape[1] for keys, _ in caches)),
            ctypes.c_int64(sequences),
            ctypes.c_int64(heads),
            ctypes.c_int64(caches[0][0].shape[0]),
            ctypes.c_int64(head_dim),
            ctypes.c_float(scale),
            _address(out),
            torch.get_num_threads(),
        )
        return out


def choose_kernels(device: str, dtype: torch.dtype, machine: Machine) -> tuple[Kernels, Choice]:
    """Choose the backend; returns it with the reason.

    On a CPU activations are always float32: they cost little, and answers match a float32 model with these weights.
    On other devices they have the dtype of the weights. If the dtype is float32, bfloat16 products are not used even
    where the CPU has them.

    Args:
        device: where the model runs.
        dtype: of the weights, as planned.
        machine: which products the CPU has natively.
    """
    if device != "cpu":
        return PlainKernels(dtype, native_bf16=True), Choice("kernels", "torch", f"the device is {device}")
    compiled = load_library()
    library = compiled.library
    reasons = [compiled.reason if library is not None else f"no native kernels: {compiled.reason}"]

    native_bf16 = machine.native_bf16 and dtype != torch.float32

    def build(native_int8: bool) -> PlainKernels:
        if library is None:
            return PlainKernels(native_bf16=native_bf16, native_int8=native_int8)
        return NativeKernels(library, native_bf16=native_bf16, native_int8=native_int8)

    kernels = build(machine.native_int8)
    fault = find_fault(kernels)
    if machine.native_int8 and (fault is not None or is_slow()):
        why = "slow" if fault is None else f"wrong in {fault}"
        reasons.append(f"integer products are not used: they are {why}")
        kernels = build(False)
        fault = find_fault(kernels)
    if fault is not None:
        kernels, reasons = PlainKernels(native_bf16=native_bf16), [f"the native kernels are wrong in {fault}"]
    return kernels, Choice("kernels", kernels.name, "; ".join(reasons))


def find_fault(kernels: Kernels) -> str | None:
    """Compare a backend with the reference on a small problem; return what disagrees, or None if nothing does."""
    generator = torch.Generator().manual_seed(0)
    plain = PlainKernels()
    dense = torch.randn((36, 640), generator=generator)
    x = torch.randn((_FEW_ROWS + 1, 640), generator=generator)
    for weight in (
        Weight.dense(dense),
        Weight.dense(dense.bfloat16()),
        Weight.dense(dense.half()),
        quantize(dense, Kind.INT8),
        quantize(dense, Kind.INT4),
    ):
        for rows in (1, 3, len(x)):
            # Products of many rows may be computed in bfloat16.
            upcasts = isinstance(kernels, NativeKernels) and weight.scales is None and rows <= _FEW_ROWS
            tolerance = 1e-4 if weight.kind is Kind.FLOAT32 or upcasts else 0.05
            wanted, found = functional.linear(x[:rows], plain.dequantize(weight)), kernels.linear(x[:rows], weight)
            if not torch.allclose(wanted, found, rtol=0, atol=tolerance * float(wanted.abs().max())):
                return f"{weight.kind.name} products of {rows} rows"
    scale, angles = torch.rand(x.shape[1], generator=generator), torch.rand((2, 32), generator=generator)
    x = x[:3]
    if not torch.allclose(plain.normalize(x, scale, 1e-6), kernels.normalize(x, scale, 1e-6), atol=1e-4):
        return "norms"
    query = torch.randn((2, 4, 32), generator=generator)
    rotated = kernels.rotate(query.clone(), angles, angles)
    if not torch.allclose(plain.rotate(query, angles, angles), rotated, atol=1e-4):
        return "positions"
    query = query[:1]
    states = torch.randn((2, 2, 70, 32), generator=generator)
    for dtype in FLOAT_KINDS:
        cache = states[0].to(dtype), states[1].to(dtype)
        wanted, found = (one.attend(query, [cache], [67], 0.2) for one in (plain, kernels))
        if not torch.allclose(wanted, found, atol=1e-4):
            return "attention"
    return None


def _address(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())

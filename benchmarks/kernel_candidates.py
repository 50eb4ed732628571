"""The ways to multiply by a stored weight that `benchmarks.kernels` compares: ours, and those of torch and torchao."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.kernels import PlainKernels, Route, shape_class
from dsvl_cli.engine.kernels.native_kernels import NativeKernels
from dsvl_cli.engine.kernels.stored_weights import GROUP, Kind, Weight, quantize

KINDS = {"bf16": Kind.BFLOAT16, "fp16": Kind.FLOAT16, "int8": Kind.INT8, "int4": Kind.INT4}
CHECKED_OUTS = 1024  # the float64 product of a whole head would take gigabytes

Run = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to multiply.

    Attributes:
        name: as in the table.
        is_library: of torch or another package, not ours.
        runs: the product with each copy of the weight.
        weight: the first out-features of the weight as the candidate stores it, float32: what its product should use.
    """

    name: str
    is_library: bool
    runs: list[Run]
    weight: torch.Tensor


def list_candidates(
    format_name: str, dense: torch.Tensor, x: torch.Tensor, copies: int, library: ctypes.CDLL | None
) -> Iterator[tuple[str, Callable[[str], Candidate]]]:
    """Return the names and makers of all candidates; one raises when its package or this CPU lacks something.

    Args:
        format_name: a key of `KINDS`.
        dense: `(out_features, in_features)`, bfloat16.
        x: `(rows, in_features)`, float32.
        copies: of each weight, so that each product can read another one.
        library: our compiled kernels.
    """
    kind = KINDS[format_name]
    is_float = kind in (Kind.BFLOAT16, Kind.FLOAT16)
    dtype = torch.float16 if kind is Kind.FLOAT16 else torch.bfloat16
    if library is not None:
        native = NativeKernels(library, _force(kind, x, Route.NATIVE))
        yield "dsvl native", partial(_ours, native, kind, dense, x, copies)
        if not is_float:
            wide = NativeKernels(library, _force(kind, x, Route.FLOAT32))
            yield "dsvl, dequantized to float32", partial(_ours, wide, kind, dense, x, copies)
    yield "dsvl with DSVL_NATIVE=0", partial(_ours, PlainKernels(), kind, dense, x, copies)
    yield "torch, upcast to float32", partial(_upcast, dense.to(dtype), x, copies)
    yield f"torch {str(dtype).removeprefix('torch.')}", partial(_sixteen_bits, dense.to(dtype), x, copies)
    if kind is Kind.INT8:
        yield "torch _weight_int8pack_mm", partial(_int8_pack, dense, x, copies)
        yield "oneDNN qlinear, prepacked", partial(_onednn, dense, x, copies)
    if kind is Kind.INT4:
        yield "torch _weight_int4pack_mm_for_cpu", partial(_int4_pack, dense, x, copies)
    if not is_float and find_spec("torchao") is not None:
        names = ("torchao int8", "torchao int8 dynamic") if kind is Kind.INT8 else ("torchao int4",)
        yield from ((name, partial(_torchao, dense, x, copies)) for name in names)


def _force(kind: Kind, x: torch.Tensor, route: Route) -> dict[Any, Route]:
    return {(kind, shape_class(len(x))): route}


def _head(weight: torch.Tensor) -> torch.Tensor:
    return weight[:CHECKED_OUTS].float()


def _copy(weight: torch.Tensor, copies: int) -> list[torch.Tensor]:
    return [weight, *(weight.clone() for _ in range(copies - 1))]


def _store(kind: Kind, dense: torch.Tensor) -> Weight:
    if kind is Kind.BFLOAT16:
        return Weight.dense(dense)
    return Weight.dense(dense.half()) if kind is Kind.FLOAT16 else quantize(dense, kind)


def _ours(kernels: PlainKernels, kind: Kind, dense: torch.Tensor, x: torch.Tensor, copies: int, name: str) -> Candidate:
    weight = kernels.quantize(dense, kind) if kind in (Kind.INT8, Kind.INT4) else _store(kind, dense)
    weights = [Weight(kind, data, weight.scales, weight.shape) for data in _copy(weight.data, copies)]
    effective = _head(kernels.dequantize(weight)).clone()
    return Candidate(name, False, [partial(kernels.linear, x, weight) for weight in weights], effective)


def _linear_upcast(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, weight.float())


def _upcast(weight: torch.Tensor, x: torch.Tensor, copies: int, name: str) -> Candidate:
    runs: list[Run] = [partial(_linear_upcast, x, one) for one in _copy(weight, copies)]
    return Candidate(name, True, runs, _head(weight))


def _sixteen_bits(weight: torch.Tensor, x: torch.Tensor, copies: int, name: str) -> Candidate:
    x = x.to(weight.dtype)
    runs: list[Run] = [partial(functional.linear, x, one) for one in _copy(weight, copies)]
    return Candidate(name, True, runs, _head(weight))


def _round_to_int8(dense: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values and their scales in float32, one a row."""
    scales = dense.float().abs().amax(dim=1).div_(127).clamp_(min=1e-12)
    return dense.float().div_(scales.unsqueeze(1)).round_().to(torch.int8), scales


def _int8_pack(dense: torch.Tensor, x: torch.Tensor, copies: int, name: str) -> Candidate:
    values, scales = _round_to_int8(dense)
    half, scales = x.bfloat16(), scales.bfloat16()
    runs: list[Run] = [partial(torch._weight_int8pack_mm, half, one, scales) for one in _copy(values, copies)]
    return Candidate(name, True, runs, _head(values) * _head(scales).unsqueeze(1))


def _int4_pack(dense: torch.Tensor, x: torch.Tensor, copies: int, name: str) -> Candidate:
    groups = dense.float().view(dense.shape[0], -1, GROUP)
    scales = groups.abs().amax(dim=2, keepdim=True).div_(7).clamp_(min=1e-12).bfloat16()
    codes = groups.div(scales.float()).round_().clamp_(-8, 7)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.add(8).int().view(dense.shape), 1)
    by_group = scales.squeeze(2).T.contiguous()
    parameters = torch.stack((by_group, torch.zeros_like(by_group)), dim=2)
    half, multiply = x.bfloat16(), torch.ops.aten._weight_int4pack_mm_for_cpu
    runs: list[Run] = [partial(multiply, half, one, GROUP, parameters) for one in _copy(packed, copies)]
    effective = _head(codes).mul_(_head(scales)).view(-1, dense.shape[1])
    return Candidate(name, True, runs, effective)


def _onednn(dense: torch.Tensor, x: torch.Tensor, copies: int, name: str) -> Candidate:
    """Multiply integers by oneDNN, with rows quantized in each call: without VNNI its sums overflow 16 bits."""
    values, scales = _round_to_int8(dense)
    packed = [torch.ops.onednn.qlinear_prepack(values, list(x.shape)) for _ in range(copies)]
    zeros = torch.zeros(len(dense), dtype=torch.int32)
    rest: tuple[Any, ...] = (scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")

    def multiply(weight: torch.Tensor) -> torch.Tensor:
        steps = x.abs().amax(dim=1, keepdim=True).div_(127).clamp_(min=1e-12)
        # Unsigned with a zero point: for signed rows there is only a slow reference loop.
        rows = (x / steps).round_().add_(128).to(torch.uint8)
        y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(rows, 1.0, 128, weight, *rest)
        return y.mul_(steps)

    runs: list[Run] = [partial(multiply, weight) for weight in packed]
    return Candidate(name, True, runs, _head(values) * _head(scales).unsqueeze(1))


def _torchao(dense: torch.Tensor, x: torch.Tensor, copies: int, name: str) -> Candidate:
    from torchao.quantization import (
        Int4WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    config: Any
    if name == "torchao int8":
        config = Int8WeightOnlyConfig(set_inductor_config=False)
    elif name == "torchao int8 dynamic":
        config = Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    else:
        # The one packing for CPUs; versions that lack it raise, which becomes a note.
        config = Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format="opaque", set_inductor_config=False)
    layer = torch.nn.Linear(dense.shape[1], dense.shape[0], bias=False, device="meta")
    layer.weight = torch.nn.Parameter(dense, requires_grad=False)
    quantize_(layer, config)
    half = x.bfloat16()
    weight: Any = layer.weight
    try:
        effective = weight.dequantize()
    except (AttributeError, NotImplementedError):
        effective = dense  # it cannot be read back: the error contains that of quantizing
    layers = [layer, *(copy.deepcopy(layer) for _ in range(copies - 1))]
    return Candidate(name, True, [partial(one, half) for one in layers], _head(effective))

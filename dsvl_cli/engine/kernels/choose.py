"""Which kernels a model gets on this machine, and why."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.choice_table import measure
from dsvl_cli.engine.kernels.kernels import FEW_ROWS, Kernels, PlainKernels, Route
from dsvl_cli.engine.kernels.measured import list_routes, product_table
from dsvl_cli.engine.kernels.native.compiler import load_library
from dsvl_cli.engine.kernels.native_kernels import NativeKernels
from dsvl_cli.engine.kernels.stored_weights import FLOAT_KINDS, Kind, Weight, quantize
from dsvl_cli.engine.progress import Choice

if TYPE_CHECKING:
    from dsvl_cli.engine.machine.detect import Machine


def choose_kernels(
    device: str, dtype: torch.dtype, machine: Machine, kinds: Iterable[Kind] = ()
) -> tuple[Kernels, Choice]:
    """Choose the backend; returns it with the reason.

    On a CPU activations are always float32: they cost little, and answers match a float32 model with these weights.
    On other devices they have the dtype of the weights. How products are computed on a CPU is measured at the first
    start, for half a second at most.

    Args:
        device: where the model runs.
        dtype: of the weights, as planned; with float32 nothing is computed in bfloat16.
        machine: its CPU's features decide which way is tried first.
        kinds: the kinds of weights of the model.
    """
    if device != "cpu":
        return PlainKernels(dtype), Choice("kernels", "torch", f"the device is {device}")
    compiled = load_library()
    library, reason = compiled.library, compiled.reason
    if library is not None:
        fault = find_native_fault(library)
        if fault is not None:
            library, reason = None, f"the native kernels are wrong in {fault}"
            compiled = type(compiled)(None, reason)
    routes = list_routes(machine, compiled, kinds, exact=dtype == torch.float32)
    answers = measure([question for question, _, _ in routes], product_table(compiled))
    chosen = {
        (kind, shape): Route(answers[question.name].chosen)
        for question, kind, shape in routes
        if answers[question.name].chosen in set(Route)
    }
    if library is None:
        return PlainKernels(routes=chosen), Choice("kernels", "torch", f"no native kernels: {reason}")
    return NativeKernels(library, chosen), Choice("kernels", "native", reason)


def find_native_fault(library: ctypes.CDLL) -> str | None:
    """Compare a library with the reference; return what disagrees, or None. One of another version lacks functions."""
    try:
        return find_fault(NativeKernels(library))
    except AttributeError as exc:
        return str(exc)


def find_fault(kernels: Kernels) -> str | None:
    """Compare a backend with the reference on a small problem; return what disagrees, or None if nothing does."""
    generator = torch.Generator().manual_seed(0)
    plain = PlainKernels()
    dense = torch.randn((36, 640), generator=generator)
    x = torch.randn((FEW_ROWS + 1, 640), generator=generator)
    for weight in (
        Weight.dense(dense),
        Weight.dense(dense.bfloat16()),
        Weight.dense(dense.half()),
        quantize(dense, Kind.INT8),
        quantize(dense, Kind.INT4),
    ):
        for rows in (1, 3, len(x)):
            tolerance = 1e-4 if weight.scales is None else 0.05
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

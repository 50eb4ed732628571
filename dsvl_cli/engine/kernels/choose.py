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
from dsvl_cli.engine.kernels.native.compiler import Compiled, load_library
from dsvl_cli.engine.kernels.native_kernels import NativeKernels
from dsvl_cli.engine.kernels.questions import REFERENCE
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
    compiled = load_sound_library()
    routes = list_routes(machine, compiled, kinds, exact=dtype == torch.float32)
    answers = measure([question for question, _, _ in routes], product_table(compiled))
    chosen = {(kind, shape): answers[question.name].chosen for question, kind, shape in routes}
    if REFERENCE in chosen.values():  # not even native code that dequantizes can be relied on
        compiled = Compiled(None, "products are wrong on this machine; see dsvl doctor")
        chosen = {}
    measured = {key: Route(name) for key, name in chosen.items()}
    if compiled.library is None:
        return PlainKernels(routes=measured), Choice("kernels", "torch", f"no native kernels: {compiled.reason}")
    return NativeKernels(compiled.library, measured), Choice("kernels", "native", compiled.reason)


def load_sound_library() -> Compiled:
    """Load the native kernels; a library that is wrong counts as none."""
    compiled = load_library()
    fault = None if compiled.library is None else find_native_fault(compiled.library)
    return compiled if fault is None else Compiled(None, f"they are wrong in {fault}")


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
        exact = functional.linear(x, plain.dequantize(weight))
        tolerance = (1e-4 if weight.scales is None else 0.05) * float(exact.abs().max())
        for rows in (1, 3, len(x)):
            if not torch.allclose(exact[:rows], kernels.linear(x[:rows], weight), rtol=0, atol=tolerance):
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

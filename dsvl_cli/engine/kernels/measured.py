"""The products with stored weights on a CPU, as questions for choices.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.choice_table import ChoiceTable, identify
from dsvl_cli.engine.kernels.choices import Candidate, Question, ShapeClass
from dsvl_cli.engine.kernels.kernels import NativeKernels, PlainKernels
from dsvl_cli.engine.kernels.native.compiler import Compiled, load_library
from dsvl_cli.engine.kernels.stored_weights import FLOAT_KINDS, GROUP, Kind, Weight

if TYPE_CHECKING:
    from dsvl_cli.engine.machine.detect import Machine

_ROWS = {ShapeClass.ONE_ROW: 1, ShapeClass.FEW_ROWS: 8, ShapeClass.PROMPT: 256}
# Up to widths that take a few milliseconds. With many rows the product dominates for narrower weights already.
_SIZES = {ShapeClass.ONE_ROW: (64, 256, 1024), ShapeClass.FEW_ROWS: (64, 256, 1024), ShapeClass.PROMPT: (64, 256, 512)}
# Relative to the largest value: float32 sums in another order; activations in bfloat16 or 8 bits.
_EXACT, _ROUNDED = 1e-4, 0.05
_REVISION = 1  # changes with what the candidates do, so that they are measured again
RENEWAL_SECONDS = 5.0  # the budget when the user asks for measuring


@dataclass(frozen=True, slots=True)
class Product:
    """Operands of a product.

    Attributes:
        x: `(rows, in_features)`, float32.
        weight: `(out_features, in_features)`.
    """

    x: torch.Tensor
    weight: Weight


def product_table(compiled: Compiled | None = None) -> ChoiceTable:
    """Return this machine's table of choices."""
    compiled = compiled or load_library()
    library = "none" if compiled.library is None else Path(compiled.library._name).name  # identifies its source
    return ChoiceTable(identify(f"{_REVISION} {library}"))


def product_questions(
    machine: Machine, compiled: Compiled | None = None, kinds: Iterable[Kind] = Kind
) -> list[Question]:
    """List the choices for some kinds of weights.

    Args:
        machine: its CPU flags decide only which candidate is the default one, tried first.
        compiled: the native kernels, loaded by default.
        kinds: the kinds of weights that a model has.
    """
    compiled = compiled or load_library()
    return [_ask(kind, shape, machine, compiled) for kind in kinds for shape in ShapeClass]


def _ask(kind: Kind, shape: ShapeClass, machine: Machine, compiled: Compiled) -> Question:
    make = lru_cache(maxsize=1)(partial(make_product, kind, _ROWS[shape]))  # all candidates share the operands
    kernels = PlainKernels() if compiled.library is None else NativeKernels(compiled.library)

    def dequantized(size: int) -> Callable[[], torch.Tensor]:
        product = make(size)
        if kind is Kind.FLOAT32:
            return partial(functional.linear, product.x, product.weight.data)
        return lambda: functional.linear(product.x, kernels.dequantize(product.weight))

    def in_bfloat16(size: int) -> Callable[[], torch.Tensor]:
        product = make(size)
        if compiled.library is None:
            narrow = PlainKernels(native_bf16=True)
        else:
            narrow = NativeKernels(compiled.library, native_bf16=True)
        return lambda: PlainKernels.linears(narrow, product.x, [product.weight])[0]

    def natively(size: int) -> Callable[[], torch.Tensor]:
        product = make(size)
        return lambda: kernels.linear(product.x, product.weight)

    def refer(size: int) -> torch.Tensor:
        product = make(size)
        return functional.linear(product.x, PlainKernels().dequantize(product.weight))

    candidates = [Candidate("float32", dequantized, _EXACT)]
    if kind is not Kind.FLOAT32:
        narrow = Candidate("bfloat16", in_bfloat16, _ROUNDED)
        candidates.insert(0 if machine.native_bf16 else 1, narrow)
    if compiled.library is not None and shape is not ShapeClass.PROMPT:
        exact = kind in FLOAT_KINDS.values()
        candidates.insert(0, Candidate("native", natively, _EXACT if exact else _ROUNDED))
    return Question(f"{kind.name.lower()} {shape.value}", tuple(candidates), refer, _SIZES[shape])


def make_product(kind: Kind, rows: int, size: int) -> Product:
    """Make operands with a square weight; drawing only some rows and repeating them with other scales saves time."""
    generator = torch.Generator().manual_seed(size)
    x = torch.randn((rows, size), generator=generator)
    drawn, times = min(size, 64), size // min(size, 64)
    scales = torch.rand(size, generator=generator).add_(0.5)
    if kind is Kind.INT8:
        data = torch.randint(-127, 128, (drawn, size), dtype=torch.int8, generator=generator).repeat(times, 1)
        return Product(x, Weight(kind, data, scales, (size, size)))
    if kind is Kind.INT4:
        packed = torch.randint(0, 256, (drawn, size // 2), dtype=torch.uint8, generator=generator).repeat(times, 1)
        grouped = scales.unsqueeze(1).repeat(1, size // GROUP).bfloat16()
        return Product(x, Weight(kind, packed, grouped, (size, size)))
    dtype = next(dtype for dtype, found in FLOAT_KINDS.items() if found is kind)
    dense = torch.randn((drawn, size), generator=generator).repeat(times, 1).mul_(scales.unsqueeze(1))
    return Product(x, Weight.dense(dense.to(dtype)))

"""The products with stored weights on a CPU, as questions for choices.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.choice_table import ChoiceTable, identify
from dsvl_cli.engine.kernels.kernels import PlainKernels, Route
from dsvl_cli.engine.kernels.native.compiler import Compiled, load_library
from dsvl_cli.engine.kernels.native_kernels import NativeKernels
from dsvl_cli.engine.kernels.questions import Candidate, Question, ShapeClass
from dsvl_cli.engine.kernels.stored_weights import FLOAT_KINDS, GROUP, PANEL, Kind, Weight

if TYPE_CHECKING:
    from dsvl_cli.engine.machine.detect import Machine

_ROWS = {ShapeClass.ONE_ROW: 1, ShapeClass.FEW_ROWS: 8, ShapeClass.PROMPT: 256}
# Up to widths that take a few milliseconds. With many rows the product dominates for narrower weights already.
_SIZES = {ShapeClass.ONE_ROW: (64, 256, 1024), ShapeClass.FEW_ROWS: (64, 256, 1024), ShapeClass.PROMPT: (64, 256, 512)}
# Relative to the largest value: float32 sums in another order; activations in bfloat16 or 8 bits.
_EXACT, _ROUNDED = 1e-4, 0.05
_REVISION = 2  # changes with what the candidates do, so that they are measured again
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
    return ChoiceTable(identify(f"{_REVISION} {compiled.fingerprint}"))


def list_routes(
    machine: Machine, compiled: Compiled | None = None, kinds: Iterable[Kind] = Kind, *, exact: bool = False
) -> list[tuple[Question, Kind, ShapeClass]]:
    """List the choices for some kinds of weights.

    Args:
        machine: its CPU flags decide only which candidate is the default one, tried first.
        compiled: the native kernels, loaded by default.
        kinds: the kinds of weights that a model has.
        exact: whether nothing may be computed in bfloat16.
    """
    compiled = compiled or load_library()
    return [(_ask(kind, shape, machine, compiled, exact=exact), kind, shape) for kind in kinds for shape in ShapeClass]


def _ask(kind: Kind, shape: ShapeClass, machine: Machine, compiled: Compiled, *, exact: bool) -> Question:
    make = lru_cache(maxsize=1)(partial(make_product, kind, _ROWS[shape]))  # all candidates share the operands
    is_float = kind in FLOAT_KINDS.values()

    def candidate(route: Route, tolerance: float) -> Candidate:
        routes = {(kind, shape): route}
        library = compiled.library
        kernels = PlainKernels(routes=routes) if library is None else NativeKernels(library, routes)

        def prepare(size: int) -> Callable[[], torch.Tensor]:
            product = make(size)
            return lambda: kernels.linear(product.x, product.weight)

        return Candidate(route.value, prepare, tolerance)

    def refer(size: int) -> torch.Tensor:
        product = make(size)
        return functional.linear(product.x, PlainKernels().dequantize(product.weight))

    candidates = [candidate(Route.FLOAT32, _EXACT)]
    if kind is not Kind.FLOAT32 and not exact:
        candidates.insert(0 if machine.native_bf16 else 1, candidate(Route.BFLOAT16, _ROUNDED))
    if compiled.library is not None and not (is_float and shape is ShapeClass.PROMPT):
        candidates.insert(0, candidate(Route.NATIVE, _EXACT if is_float else _ROUNDED))
    name = f"{kind.name.lower()} {shape.value}"
    return Question(f"{name} of a float32 model" if exact else name, tuple(candidates), refer, _SIZES[shape])


def make_product(kind: Kind, rows: int, size: int) -> Product:
    """Make operands with a square weight; drawing only some rows and repeating them with other scales saves time."""
    generator = torch.Generator().manual_seed(size)
    x = torch.randn((rows, size), generator=generator)
    drawn, times = min(size, 64), size // min(size, 64)
    scales = torch.rand(size, generator=generator).add_(0.5)
    if kind is Kind.INT8:
        data = torch.randint(-127, 128, (drawn, size), dtype=torch.int8, generator=generator).repeat(times, 1)
        return Product(x, Weight(kind, data.view(-1, size // 4, PANEL, 4), scales, (size, size)))
    if kind is Kind.INT4:
        packed = torch.randint(0, 256, (drawn, size // 2), dtype=torch.uint8, generator=generator).repeat(times, 1)
        grouped = scales.view(-1, 1, PANEL).repeat(1, size // GROUP, 1).bfloat16()
        return Product(x, Weight(kind, packed.view(-1, size // 8, PANEL, 4), grouped, (size, size)))
    dtype = next(dtype for dtype, found in FLOAT_KINDS.items() if found is kind)
    dense = torch.randn((drawn, size), generator=generator).repeat(times, 1).mul_(scales.unsqueeze(1))
    return Product(x, Weight.dense(dense.to(dtype)))

"""Products of many rows with 8-bit weights as integers, by oneDNN, for CPUs that multiply 8 bits natively.

Each row of activations is brought to 8 bits with a scale of its own. What is far larger than the rest of its row would
make those steps coarse; the columns where such values stand are multiplied apart, unquantized (after Dettmers et al.,
"LLM.int8()", 2022).

Not for other CPUs: there oneDNN adds products in 16 bits, which overflow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.stored_weights import Kind, Weight, quantize

# What stands for zero. CPUs multiply unsigned activations with signed weights: for signed ones oneDNN has only its
# reference loop where there is AVX-512-VNNI, and that takes minutes for a prompt.
_ZERO_POINT = 128
# A value of so many times the root mean square of its row is apart: without it half a step is at most
# 16 / 127 / 2 = 6 % of that mean, and the error of a row 4 % of the row, as that of int8 weights.
_FAR = 16.0
_SLOW = 10.0  # times as long as a product in float32: no noise, and what oneDNN has no fast code for takes hundreds


@dataclass(frozen=True, slots=True)
class NarrowRows:
    """Activations in 8 bits.

    Attributes:
        values: `(rows, columns)`, uint8: -127 to 127 with 128 added.
        scales: `(rows, 1)`, float32.
        far: the columns that are apart, `(far,)`.
        far_values: what stands there, `(rows, far)`, float32; zero, that is 128, in `values`.
    """

    values: torch.Tensor
    scales: torch.Tensor
    far: torch.Tensor
    far_values: torch.Tensor


def narrow_rows(x: torch.Tensor) -> NarrowRows:
    """Bring rows `(rows, columns)` to 8 bits."""
    x = x.float()
    magnitudes = x.abs()
    limits = x.square().mean(dim=1, keepdim=True).sqrt_().mul_(_FAR)
    far = (magnitudes > limits).any(dim=0).nonzero().squeeze(1)
    far_values = x[:, far]
    if len(far):
        x = x.index_fill(1, far, 0.0)
        magnitudes = magnitudes.index_fill_(1, far, 0.0)
    scales = magnitudes.amax(dim=1, keepdim=True).div_(127).clamp_(min=1e-12)
    return NarrowRows((x / scales).round_().add_(_ZERO_POINT).to(torch.uint8), scales, far, far_values)


def multiply_narrow(rows: NarrowRows, weight: Weight) -> torch.Tensor:
    """Multiply with an INT8 weight `(out_features, columns)`; gives `(rows, out_features)` in float32.

    The weight is brought into oneDNN's order for each product, which costs little beside it and no memory.
    """
    assert weight.scales is not None
    outs = weight.shape[0]
    ordered = torch.ops.onednn.qlinear_prepack(weight.data, list(rows.values.shape))
    y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        rows.values, 1.0, _ZERO_POINT, ordered, weight.scales, torch.zeros(outs, dtype=torch.int32), None,
        1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    y = y.mul_(rows.scales)
    if len(rows.far):
        apart = weight.data[:, rows.far].float().mul_(weight.scales.unsqueeze(1))
        y.addmm_(rows.far_values, apart.T)
    return y


def is_slow() -> bool:
    """Tell whether this CPU takes far longer for a small product of integers than for one in float32."""
    generator = torch.Generator().manual_seed(0)
    dense, x = torch.randn((512, 512), generator=generator), torch.randn((64, 512), generator=generator)
    weight = quantize(dense, Kind.INT8)
    functional.linear(x, dense)  # what is done at a first call only
    exact = min(_time(lambda: functional.linear(x, dense)) for _ in range(3))
    return _time(lambda: multiply_narrow(narrow_rows(x), weight)) > _SLOW * exact


def _time(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start

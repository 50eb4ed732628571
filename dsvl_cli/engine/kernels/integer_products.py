"""Integer matrix products of many rows with 8-bit weights, by oneDNN, for CPUs with native 8-bit multiplication.

Activations are quantized to 8 bits with one scale per row. Outliers would make the quantization steps of their row
coarse, so columns that contain one are multiplied separately, unquantized (Dettmers et al., "LLM.int8()", 2022).

Not for other CPUs: oneDNN accumulates in 16 bits there, which overflows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch.nn import functional

from dsvl_cli.engine.kernels.stored_weights import Kind, Weight, quantize

# CPUs multiply unsigned activations with signed weights. For signed activations on AVX-512-VNNI oneDNN has only its
# reference loop, which takes minutes for a prompt.
_ZERO_POINT = 128
# An outlier exceeds the root mean square of its row by this factor. Without outliers half a step is at most
# 16 / 127 / 2 = 6 % of the RMS, and the error of a row 4 %, about that of int8 weights.
_OUTLIER = 16.0
_SLOW = 10.0  # times a float32 product: above noise; where oneDNN has no fast code the factor is in the hundreds


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Activations quantized to 8 bits.

    Attributes:
        values: `(rows, columns)`, uint8: -127 to 127, offset by 128.
        scales: `(rows, 1)`, float32.
        outliers: the columns that contain outliers, `(outliers,)`; in `values` they are zero, stored as 128.
        outlier_values: these columns, `(rows, outliers)`, float32.
    """

    values: torch.Tensor
    scales: torch.Tensor
    outliers: torch.Tensor
    outlier_values: torch.Tensor


def quantize_rows(x: torch.Tensor) -> QuantizedRows:
    """Quantize rows `(rows, columns)` to 8 bits."""
    x = x.float()
    magnitudes = x.abs()
    limits = x.square().mean(dim=1, keepdim=True).sqrt_().mul_(_OUTLIER)
    outliers = (magnitudes > limits).any(dim=0).nonzero().squeeze(1)
    outlier_values = x[:, outliers]
    if len(outliers):
        x = x.index_fill(1, outliers, 0.0)
        magnitudes = magnitudes.index_fill_(1, outliers, 0.0)
    scales = magnitudes.amax(dim=1, keepdim=True).div_(127).clamp_(min=1e-12)
    return QuantizedRows((x / scales).round_().add_(_ZERO_POINT).to(torch.uint8), scales, outliers, outlier_values)


def multiply_quantized(rows: QuantizedRows, weight: Weight) -> torch.Tensor:
    """Multiply by an INT8 weight `(out_features, columns)`; returns `(rows, out_features)` in float32.

    The weight is reordered for oneDNN in every call: cheap next to the product, and no copy is kept.
    """
    assert weight.scales is not None
    outs = weight.shape[0]
    ordered = torch.ops.onednn.qlinear_prepack(weight.data, list(rows.values.shape))
    y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        rows.values, 1.0, _ZERO_POINT, ordered, weight.scales, torch.zeros(outs, dtype=torch.int32), None,
        1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    y = y.mul_(rows.scales)
    if len(rows.outliers):
        weights = weight.data[:, rows.outliers].float().mul_(weight.scales.unsqueeze(1))
        y.addmm_(rows.outlier_values, weights.T)
    return y


def is_slow() -> bool:
    """Whether a small integer product takes far longer on this CPU than the same product in float32."""
    generator = torch.Generator().manual_seed(0)
    dense, x = torch.randn((512, 512), generator=generator), torch.randn((64, 512), generator=generator)
    weight = quantize(dense, Kind.INT8)
    functional.linear(x, dense)  # one-time setup
    exact = min(_time(lambda: functional.linear(x, dense)) for _ in range(3))
    return _time(lambda: multiply_quantized(quantize_rows(x), weight)) > _SLOW * exact


def _time(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start

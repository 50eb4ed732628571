"""Integer products by oneDNN. Codes are small, to be right on CPUs without native 8-bit products too."""

from __future__ import annotations

import pytest
import torch

from dsvl_cli.engine.kernels.integer_products import multiply_quantized, quantize_rows
from dsvl_cli.engine.kernels.kernels import PlainKernels
from dsvl_cli.engine.kernels.stored_weights import Kind, Weight, dequantize


def make_weight(outs: int, columns: int, largest: int = 63) -> Weight:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(-largest, largest + 1, (outs, columns), generator=generator, dtype=torch.int8)
    return Weight(Kind.INT8, codes, torch.rand(outs, generator=generator) + 0.1, (outs, columns))


def make_rows(rows: int, columns: int) -> torch.Tensor:
    return torch.randn((rows, columns), generator=torch.Generator().manual_seed(2))


def test_rows_are_quantized_each_with_its_own_scale() -> None:
    x = make_rows(5, 96) * torch.tensor([[1e-3], [1.0], [50.0], [0.0], [1e6]])
    rows = quantize_rows(x)
    assert rows.values.dtype == torch.uint8  # signed ones run in oneDNN's reference loop where there is VNNI
    values = rows.values.float() - 128
    assert values[[0, 1, 2, 4]].abs().amax(dim=1).tolist() == [127] * 4
    assert len(rows.outliers) == 0
    error = (values * rows.scales - x).norm(dim=1)
    assert bool((error <= 0.01 * x.norm(dim=1)).all())


def test_products_are_those_of_the_integers() -> None:
    weight, x = make_weight(40, 128), make_rows(48, 128)
    rows = quantize_rows(x)
    # CPUs without native products sum two products of an unsigned and a signed byte in 16 bits.
    halved = type(rows)(rows.values // 2 + 64, rows.scales, rows.outliers, rows.outlier_values)
    wanted = ((halved.values.float() - 128) * rows.scales) @ dequantize(weight).T
    torch.testing.assert_close(multiply_quantized(halved, weight), wanted, rtol=1e-5, atol=1e-3)


def test_outliers_do_not_make_the_rest_of_their_row_coarse() -> None:
    weight, x = make_weight(40, 512, largest=20), make_rows(48, 512)
    x[3, 17], x[9, 200] = 2_000.0, -700.0
    rows = quantize_rows(x)
    assert rows.outliers.tolist() == [17, 200]
    found, wanted = multiply_quantized(rows, weight), x @ dequantize(weight).T
    apart = torch.zeros_like(x).index_copy_(1, rows.outliers, x[:, rows.outliers]) @ dequantize(weight).T
    scale = (x - torch.zeros_like(x).index_copy_(1, rows.outliers, x[:, rows.outliers])).norm(dim=1, keepdim=True)
    error = (found - wanted).norm(dim=1, keepdim=True) / (scale * dequantize(weight).norm())
    assert float(error.max()) < 0.01
    assert float((apart - wanted).abs().max()) > 1  # the rest matters


@pytest.mark.parametrize("rows", [1, 64])
def test_the_layer_takes_them_for_many_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    calls = []

    def multiply(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        return multiply_quantized(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("dsvl_cli.engine.kernels.kernels.multiply_quantized", multiply)
    kernels = PlainKernels(native_int8=True)
    weights = [make_weight(40, 128, largest=20), Weight.dense(make_rows(8, 128)), make_weight(24, 128, largest=20)]
    x = make_rows(rows, 128)
    for found, weight in zip(kernels.linears(x, weights), weights, strict=True):
        wide = dequantize(weight) if weight.scales is not None else weight.data
        wanted = x @ wide.T
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.03 * float(wanted.abs().max()))
    assert len(calls) == (2 if rows == 64 else 0)

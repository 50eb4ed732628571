from __future__ import annotations

import pytest
import torch

from dsvl_cli.engine.network.library_logging import import_backend
from dsvl_cli.engine.quantization.formats import FORMATS, STORED_FORMATS, Recipe, Verdict, find_cell
from dsvl_cli.engine.quantization.packing import pack_weight, quantize_4bit, quantize_8bit, unpack_weight

ON_CPU = sorted(name for name in STORED_FORMATS if find_cell(name, "cpu", "bfloat16").verdict is Verdict.WORKS)


def make_weight(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """Weights of all sizes, with a block of zeros, an outlier, and neighbours that are equal."""
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.logspace(-4, 1, shape[0]).unsqueeze(1)
    weight[0, :64] = 0
    weight[1, :64] = 0.5
    weight[2, 5] = 1000.0
    return weight.to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_are_those_of_bitsandbytes(monkeypatch: pytest.MonkeyPatch, kind: str, dtype: torch.dtype) -> None:
    import_backend("bitsandbytes")
    from bitsandbytes.functional import quantize_4bit as reference

    monkeypatch.setattr(
        "dsvl_cli.engine.quantization.packing._CHUNK", 4096
    )  # so that there are several, the last one short
    weight = make_weight((96, 448), dtype)
    packed, scales = quantize_4bit(weight, kind)
    expected, state = reference(weight, quant_type=kind, compress_statistics=False)
    assert torch.equal(packed, expected)
    assert torch.equal(scales, state.absmax)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_eight_bits_are_those_of_bitsandbytes(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    import_backend("bitsandbytes")
    from bitsandbytes.functional import int8_vectorwise_quant as reference

    monkeypatch.setattr("dsvl_cli.engine.quantization.packing._CHUNK", 4096)
    weight = make_weight((101, 448), dtype)
    weight[7] = 0
    values, scales = quantize_8bit(weight)
    expected, expected_scales, _ = reference(weight.to(torch.float16))
    assert torch.equal(values, expected)
    assert torch.equal(scales, expected_scales)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", ON_CPU)
def test_a_weight_comes_back_nearly_as_it_was(name: str, dtype: torch.dtype) -> None:
    entry = FORMATS[name]
    import_backend(entry.package)
    torch.manual_seed(1)
    weight = (torch.randn(64, 256) * 0.02).to(dtype)
    tensors, metadata = pack_weight("a.b.weight", weight, Recipe(entry), "cpu")
    assert all(key.startswith("a.b.") for key in tensors)
    restored = unpack_weight("a.b.weight", tensors, metadata)
    assert restored.shape == weight.shape
    error = float((restored - weight.float()).norm() / weight.float().norm())
    assert error < entry.layer_error
    assert error > entry.layer_error / 50, "else the limit would let damage through"

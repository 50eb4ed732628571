"""How the weights of linear layers are stored: in 16 or 32 bits, or in dsvl's own 8- and 4-bit formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch

GROUP = 64  # int4 weights that share a scale


class Kind(IntEnum):
    """Storage formats of weights; the numbers match kernels.c."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3
    FLOAT16 = 4


# The kinds that are a dtype of torch.
FLOAT_KINDS = {torch.float32: Kind.FLOAT32, torch.bfloat16: Kind.BFLOAT16, torch.float16: Kind.FLOAT16}


@dataclass(frozen=True, slots=True)
class Weight:
    """The weight of a linear layer without bias.

    Attributes:
        kind: the format of `data`.
        data: `(out_features, in_features)`; INT4 packs two weights per byte, `(out_features, in_features / 2)`.
        scales: INT8: `(out_features,)` in float32; INT4: `(out_features, in_features / 64)` in bfloat16.
        shape: `(out_features, in_features)`.
    """

    kind: Kind
    data: torch.Tensor
    scales: torch.Tensor | None
    shape: tuple[int, int]

    @classmethod
    def dense(cls, data: torch.Tensor) -> Weight:
        """Wrap a 16- or 32-bit weight without a copy."""
        return cls(FLOAT_KINDS[data.dtype], data, None, (data.shape[0], data.shape[1]))

    @property
    def nbytes(self) -> int:
        """Size in bytes, including the scales."""
        return self.data.nbytes + (self.scales.nbytes if self.scales is not None else 0)


# A linear layer: a stored weight, or a module of another library that does its own product.
Linear = Weight | Callable[[torch.Tensor], torch.Tensor]


def quantize(weight: torch.Tensor, kind: Kind) -> Weight:
    """Quantize a weight `(out_features, in_features)` to 8 or 4 bits.

    INT8: -127 to 127, one scale per row. INT4: -8 to 7 in groups of 64 along a row; the weight of largest magnitude in
    a group maps to -8 or a little less, as in llama.cpp's q4_0, to use all 16 values. In-features must be a multiple
    of 64.
    """
    wide = weight.float()
    shape = (weight.shape[0], weight.shape[1])
    if kind is Kind.INT8:
        scales = wide.abs().amax(dim=1).div_(127).clamp_(min=1e-12)
        return Weight(kind, wide.div(scales.unsqueeze(1)).round_().to(torch.int8), scales, shape)
    groups = wide.view(shape[0], -1, GROUP)
    scales = _choose_scales(groups)
    codes = groups.div(scales.float().unsqueeze(2)).round_().clamp_(-8, 7).add_(8).to(torch.uint8)
    packed = codes[..., : GROUP // 2] | codes[..., GROUP // 2 :] << 4
    return Weight(kind, packed.reshape(shape[0], -1), scales, shape)


def _choose_scales(groups: torch.Tensor) -> torch.Tensor:
    """Choose the scale of each group, `(out_features, groups)` in bfloat16, with the least squared error of a few."""
    positions = groups.abs().argmax(dim=2, keepdim=True)
    largest = groups.gather(2, positions).squeeze(2)
    best = torch.full_like(largest, float("inf"))
    chosen = torch.ones_like(largest, dtype=torch.bfloat16)
    for steps in (-8.0, -8.5, -7.5, -9.0, 7.5):
        scales = (largest / steps).bfloat16()
        scales = torch.where(scales == 0, torch.full_like(scales, 1e-12), scales)
        wide = scales.float().unsqueeze(2)
        error = groups.div(wide).round_().clamp_(-8, 7).mul_(wide).sub_(groups).square_().sum(dim=2)
        better = error < best
        best = torch.where(better, error, best)
        chosen = torch.where(better, scales, chosen)
    return chosen


def dequantize(weight: Weight) -> torch.Tensor:
    """Dequantize an 8- or 4-bit weight to `(out_features, in_features)` in float32."""
    assert weight.scales is not None
    if weight.kind is Kind.INT8:
        return weight.data.float() * weight.scales.unsqueeze(1)
    packed = weight.data.view(weight.shape[0], -1, GROUP // 2)
    codes = torch.cat((packed & 15, packed >> 4), dim=2).float().sub_(8)
    return codes.mul_(weight.scales.float().unsqueeze(2)).view(weight.shape)

"""How the weights of linear layers are stored: in 16 or 32 bits, or in dsvl's own 8- and 4-bit formats.

The 8- and 4-bit formats are stored in panels of 16 rows, interleaved as the compiled products read them: see
native/panels.h.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch.nn import functional

GROUP = 64  # in-features of an 8- or 4-bit weight are a multiple of this; int4 weights in a group share a scale
PANEL = 16  # rows


class Kind(IntEnum):
    """Storage formats of weights; the numbers match native/vectors.h."""

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
        data: `(out_features, in_features)` in 16 or 32 bits. INT8: int8 `(panels, in_features / 4, 16, 4)`; INT4 packs
            two weights per byte, uint8 `(panels, in_features / 8, 16, 4)`.
        scales: INT8: `(panels * 16,)` in float32; INT4: `(panels, in_features / 64, 16)` in bfloat16.
        shape: `(out_features, in_features)`.

    Raises:
        ValueError: the parts do not fit each other. Compiled code relies on this check.
    """

    kind: Kind
    data: torch.Tensor
    scales: torch.Tensor | None
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        outs, columns = self.shape
        panels = -(-outs // PANEL)
        wanted: tuple[object, ...]
        if self.kind is Kind.INT8:
            wanted = ((panels, columns // 4, PANEL, 4), torch.int8, (panels * PANEL,), torch.float32)
        elif self.kind is Kind.INT4:
            wanted = ((panels, columns // 8, PANEL, 4), torch.uint8, (panels, columns // GROUP, PANEL), torch.bfloat16)
        else:
            wanted = (self.shape, next(dtype for dtype, kind in FLOAT_KINDS.items() if kind is self.kind), None, None)
        scales = (None, None) if self.scales is None else (tuple(self.scales.shape), self.scales.dtype)
        misfits = wanted != (tuple(self.data.shape), self.data.dtype, *scales)
        if misfits or outs < 1 or columns < 1 or (self.scales is not None and columns % GROUP):
            raise ValueError(f"a {self.kind.name} weight of shape {self.shape} has other parts than it should")

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


def count_packed_bytes(kind: Kind, outs: int, columns: int) -> int:
    """Return the size of an 8- or 4-bit weight in bytes, including the scales."""
    rows = -(-outs // PANEL) * PANEL
    return rows * (columns + 4) if kind is Kind.INT8 else rows * (columns // 2 + columns // GROUP * 2)


def empty_weight(kind: Kind, outs: int, columns: int) -> Weight:
    """Allocate an 8- or 4-bit weight of zeros, to be filled."""
    panels = -(-outs // PANEL)
    if kind is Kind.INT8:
        data = torch.zeros((panels, columns // 4, PANEL, 4), dtype=torch.int8)
        return Weight(kind, data, torch.zeros(panels * PANEL), (outs, columns))
    data = torch.zeros((panels, columns // 8, PANEL, 4), dtype=torch.uint8)
    return Weight(kind, data, torch.zeros((panels, columns // GROUP, PANEL), dtype=torch.bfloat16), (outs, columns))


def quantize(weight: torch.Tensor, kind: Kind) -> Weight:
    """Quantize a weight `(out_features, in_features)` to 8 or 4 bits.

    INT8: -127 to 127, one scale per row. INT4: -8 to 7 in groups of 64 along a row; the weight of largest magnitude in
    a group maps to -8 or a little less, as in llama.cpp's q4_0, to use all 16 values. In-features must be a multiple
    of 64.
    """
    wide = weight.float()
    if kind is Kind.INT8:
        scales = wide.abs().amax(dim=1).div_(127).clamp_(min=1e-12)
        return interleave_int8(wide.div(scales.unsqueeze(1)).round_().to(torch.int8), scales)
    groups = wide.view(weight.shape[0], -1, GROUP)
    scales = _choose_scales(groups)
    codes = groups.div(scales.float().unsqueeze(2)).round_().clamp_(-8, 7).add_(8).to(torch.uint8)
    return _interleave_int4(codes, scales)


def interleave_int8(values: torch.Tensor, scales: torch.Tensor) -> Weight:
    """Bring 8-bit weights `(out_features, in_features)`, with a scale per row, into panels."""
    outs, columns = values.shape
    missing = -outs % PANEL
    panels = functional.pad(values, (0, 0, 0, missing)).view(-1, PANEL, columns // 4, 4).transpose(1, 2).contiguous()
    return Weight(Kind.INT8, panels, functional.pad(scales, (0, missing)), (outs, columns))


def _interleave_int4(codes: torch.Tensor, scales: torch.Tensor) -> Weight:
    """Pack codes `(out_features, groups, 64)` of 0 to 15, with scales `(out_features, groups)`, into panels."""
    outs, groups, _ = codes.shape
    missing = -outs % PANEL
    packed = functional.pad(codes[..., : GROUP // 2] | codes[..., GROUP // 2 :] << 4, (0, 0, 0, 0, 0, missing))
    panels = packed.view(-1, PANEL, groups * GROUP // 8, 4).transpose(1, 2).contiguous()
    scales = functional.pad(scales, (0, 0, 0, missing)).view(-1, PANEL, groups).transpose(1, 2).contiguous()
    return Weight(Kind.INT4, panels, scales, (outs, groups * GROUP))


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
    outs, columns = weight.shape
    if weight.kind is Kind.INT8:
        rows = weight.data.transpose(1, 2).reshape(-1, columns)[:outs]
        return rows.float() * weight.scales[:outs].unsqueeze(1)
    packed = weight.data.transpose(1, 2).reshape(-1, columns // GROUP, GROUP // 2)[:outs]
    codes = torch.cat((packed & 15, packed >> 4), dim=2).float().sub_(8)
    scales = weight.scales.transpose(1, 2).reshape(-1, columns // GROUP)[:outs]
    return codes.mul_(scales.float().unsqueeze(2)).view(weight.shape)

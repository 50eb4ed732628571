"""A picture -> the input of the vision towers: resized, padded to a square, scaled, normalized.

The pixels are bit-identical to those of transformers' PIL image processors for DeepSeek-VL. The torchvision ones, which
`AutoProcessor` selects where torchvision is installed, differ slightly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dsvl_cli.engine.checkpoint.layouts import read_image_settings
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from PIL.Image import Image

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_DEFAULTS: dict[str, Any] = {
    "size": 384,
    "resample": 3,
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
    "high_res_size": 1024,
    "high_res_resample": 3,
    "high_res_image_mean": _CLIP_MEAN,
    "high_res_image_std": _CLIP_STD,
    "min_size": 14,
    "rescale_factor": 1 / 255,
    "do_rescale": True,
    "do_normalize": True,
}
_LARGEST_SIDE = 4096  # pixels
_LARGEST_LEVEL = 1e6  # after normalization; 2 to 3 with the published means
# Switches that must have these values: the networks need RGB squares of one size.
_FIXED = {"do_resize": True, "do_pad": True, "do_convert_rgb": True, "do_center_crop": False}
# Settings without any effect on the pixels. The background colour is always computed from the mean.
_IDLE = {
    "image_processor_type", "processor_class", "background_color", "high_res_background_color", "default_to_square",
    "crop_size", "pad_size", "data_format", "input_data_format", "device", "return_tensors", "disable_grouping",
    "image_seq_length",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resolution:
    """How a picture becomes the square input of one tower.

    Attributes:
        side: of the square, in pixels.
        min_size: no edge becomes shorter than this, in pixels.
        resample: the filter, by Pillow's number.
        background: RGB colour of the padding.
        table: `(3, 256)` in float32: the normalized value of each level of each channel.
    """

    side: int
    min_size: int
    resample: int
    background: tuple[int, int, int]
    table: torch.Tensor

    def fit(self, image: Image) -> Image:
        """Resize the longer edge to `side`, and pad the shorter one on both sides."""
        from PIL import Image as Images

        scale = self.side / max(image.size)
        width, height = (max(round(edge * scale), self.min_size) for edge in image.size)
        resized = image.resize((width, height), self.resample)
        if width == height:
            return resized
        longer = max(width, height)
        square = Images.new("RGB", (longer, longer), self.background)
        square.paste(resized, ((longer - width) // 2, (longer - height) // 2))
        return square

    def numbers(self, square: Image) -> torch.Tensor:
        """Return the normalized pixels `(1, 3, side, side)` of a square picture."""
        levels = np.frombuffer(square.tobytes(), np.uint8).reshape(square.height, square.width, 3)
        # numpy: torch would start threads for each of these small operations.
        channels = [values.take(levels[:, :, i]) for i, values in enumerate(self.table.numpy())]
        return torch.from_numpy(np.stack(channels)).unsqueeze(0)


class ImageProcessor:
    """The preprocessing that a checkpoint's processor files describe.

    Args:
        low: for SigLIP.
        high: for SAM; None if there is only SigLIP.
    """

    def __init__(self, low: Resolution, high: Resolution | None = None) -> None:
        self.low = low
        self.high = high

    def __call__(self, image: Image) -> dict[str, torch.Tensor]:
        """Return `pixel_values`, and with two towers `high_res_pixel_values`, each `(1, 3, side, side)` in float32.

        Args:
            image: RGB.
        """
        if self.high is None:
            return {"pixel_values": self.low.numbers(self.low.fit(image))}
        square = self.high.fit(image)
        return {
            "pixel_values": self.low.numbers(self.low.fit(square)),
            "high_res_pixel_values": self.high.numbers(square),
        }

    def view(self, image: Image) -> Image:
        """Return the picture as SigLIP sees it: RGB, `(side, side)` pixels."""
        return self.low.fit(image if self.high is None else self.high.fit(image))


def read_image_processor(folder: Path, model_type: str) -> ImageProcessor:
    """Read a checkpoint's image processor.

    Raises:
        DsvlError: there is no usable one, or a setting is not supported.
    """
    settings = read_image_settings(folder)
    try:
        return make_image_processor(settings, hybrid=model_type == "deepseek_vl_hybrid")
    except (TypeError, ValueError, ArithmeticError) as exc:
        raise DsvlError(f"{folder} has no usable image processor", "download it again") from exc


def make_image_processor(settings: Mapping[str, Any], *, hybrid: bool) -> ImageProcessor:
    """Make the processor that a file's settings describe, with the defaults of transformers.

    Raises:
        DsvlError: a setting is unknown, or has a value that the networks cannot handle.
        TypeError, ValueError, ArithmeticError: a value is invalid.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    unknown = sorted(given.keys() - _DEFAULTS.keys() - _FIXED.keys() - _IDLE)
    refused = [name for name, value in _FIXED.items() if given.get(name, value) != value]
    if unknown or refused:
        names = ", ".join(unknown + refused)
        raise DsvlError(f"the image processor's setting {names} is not supported", "without it the pixels would differ")
    values = {**_DEFAULTS, **given}
    low = _resolution(values)
    return ImageProcessor(low, _resolution(values, "high_res_") if hybrid else None)


def _resolution(values: Mapping[str, Any], kind: str = "") -> Resolution:
    """Read the settings of one tower, whose names begin with `kind`."""
    side, mean, std = (
        _side(values[f"{kind}size"]),
        _triple(values[f"{kind}image_mean"]),
        _triple(values[f"{kind}image_std"]),
    )
    # 0 means the other tower's, as in transformers.
    resample, min_size = values[f"{kind}resample"] or values["resample"], values["min_size"]
    table = _table(values, mean, std)
    if (
        type(resample) is not int
        or resample not in range(6)
        or type(min_size) is not int
        or not 0 < min_size <= _LARGEST_SIDE
    ):
        raise ValueError("no filter, or no size")
    if not all(0 <= level <= 1 for level in mean) or not all(0 < level <= 1 for level in std):
        raise ValueError("means and deviations of levels from 0 to 1")
    if not bool((table.abs() < _LARGEST_LEVEL).all()):
        raise ValueError("the levels are no numbers")
    red, green, blue = (int(255 * level) for level in mean)
    return Resolution(side, min_size, resample, (red, green, blue), table)


def _table(values: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Compute the values of the 256 levels, rounded at the same steps as in transformers."""
    levels = torch.arange(256, dtype=torch.float64).expand(3, 256)
    if values["do_rescale"]:
        levels = levels * float(values["rescale_factor"])
    table = levels.float()
    if values["do_normalize"]:
        table = (table - torch.tensor(mean).unsqueeze(1)) / torch.tensor(std).unsqueeze(1)
    return table.contiguous()


def _side(size: object) -> int:
    """Return the side of a square that is given as one number, as two, or by names."""
    if isinstance(size, Mapping):
        edges = [size["height"], size["width"]] if size.keys() == {"height", "width"} else []
    else:
        edges = list(size) if isinstance(size, (list, tuple)) else [size, size]
    if len(edges) != 2 or edges[0] != edges[1] or type(edges[0]) is not int or not 0 < edges[0] <= _LARGEST_SIDE:
        raise ValueError(f"{size} is not a square")
    return edges[0]


def _triple(value: Any) -> tuple[float, ...]:
    red, green, blue = (float(level) for level in value)
    return red, green, blue

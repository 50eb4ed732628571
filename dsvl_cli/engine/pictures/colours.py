"""Converts decoded images of any mode to 8-bit RGB."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dsvl_cli.engine.pictures.signatures import SAVE_AS_PNG
from dsvl_cli.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image


def to_rgb(image: Image, name: str) -> tuple[Image, tuple[str, ...]]:
    """Convert an image to RGB, transparency on white; also return notes for the user.

    Raises:
        ImageError: its colours cannot be converted.
    """
    from PIL import Image

    if image.mode == "LAB":
        raise ImageError(f"{name}: Lab colours are not supported", SAVE_AS_PNG)
    if image.mode[0] in "IF":
        grey, notes = _eight_bits(image, name)
        return grey.convert("RGB"), notes
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image)
        return ground, ()
    return (image if image.mode == "RGB" else image.convert("RGB")), ()


def _eight_bits(image: Image, name: str) -> tuple[Image, tuple[str, ...]]:
    """Convert 16- or 32-bit integers or floats to 8-bit grey, where Pillow itself would clip at 255.

    Integers from 32768 to 65535 are taken as 16 bits. Cameras, scanners and microscopes put 8 to 15 bits into 16
    without shifting them, and no tag says how many: smaller integers are taken as just the bits that hold the largest.
    Floats up to 1 are fractions of white; any other range is scaled from its minimum and maximum.
    """
    is_deep = image.mode.startswith("I;16")
    wide = image.convert("I") if is_deep else image
    low, high = wide.getextrema()
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)) or not math.isfinite(high - low):
        raise ImageError(f"{name}: contains values that are not numbers", SAVE_AS_PNG)
    scale, offset = 255 / ((high - low) or 1), 0.0
    notes: tuple[str, ...] = ()
    if is_deep or (image.mode == "I" and low >= 0 and high <= 65535):
        bits = max(8, int(high).bit_length())
        scale = 1 / 256 if bits == 16 else 255 / (2**bits - 1)  # 1 / 256 is exact, and truncated to the high byte
        if high > 0 and bits < 16:
            notes = (f"its values end at {high:,}: taken as {bits} bits of grey, not as 16",)
    elif image.mode == "F" and low >= 0 and high <= 1:
        scale = 255.0
    else:
        offset = -low * scale
    return wide.point(lambda value: value * scale + offset).convert("L"), notes

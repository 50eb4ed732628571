"""Pictures for tests, drawn in memory."""

from __future__ import annotations

import io
import random

from PIL import Image, ImageDraw

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.pictures.images import picture_from_bytes

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")


def draw_picture(seed: int = 0, size: tuple[int, int] = (96, 96), name: str | None = None) -> Picture:
    """Draw one to three blobs of different colours; each seed gives another picture."""
    rng = random.Random(seed)
    ground, *colours = rng.sample(COLOURS, 4)
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    for colour in colours[: rng.randint(1, 3)]:
        x, y, radius = rng.randrange(size[0]), rng.randrange(size[1]), rng.randint(8, 30)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x - radius, y - radius, x + radius, y + radius), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return picture_from_bytes(buffer.getvalue(), name or f"picture-{seed}.png")

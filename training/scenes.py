"""Scenes: sampling the contents of a picture from a seed, and drawing it with Pillow.

A scene is one to three shapes or one number on a plain background. Everything that a question may ask about is
visually unambiguous by construction: shapes do not touch, their order (left to right, or top to bottom in a stack) has
a margin, and a place is only named if the centre is well within a slot.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((220, 30, 35), (255, 0, 0), (200, 20, 20)),
    "green": ((30, 160, 60), (0, 128, 0), (0, 220, 30), (0, 255, 0)),
    "blue": ((40, 70, 215), (0, 0, 255), (30, 100, 235)),
    "yellow": ((245, 225, 40), (255, 255, 0), (250, 215, 10)),
    "black": ((15, 15, 15), (0, 0, 0), (30, 30, 30)),
    "white": ((245, 245, 245), (255, 255, 255), (235, 235, 235)),
    "orange": ((250, 140, 20), (255, 165, 0), (255, 128, 0)),
    "purple": ((130, 45, 165), (128, 0, 128), (150, 40, 190)),
}
KINDS: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")
SLOTS: tuple[str, ...] = (
    "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
Split = Literal["train", "evaluation"]
RGB = tuple[int, int, int]

# The seeds of the two splits are in disjoint ranges.
SPLIT_BASE: dict[Split, int] = {"train": 0, "evaluation": 1 << 60}
PADDING_GREY = 127  # the processor's padding: its mean, 0.5

_SLOT_CENTRES = (0.18, 0.5, 0.82)
_SLOT_JITTER = 0.05
_ORDER_MARGIN = 0.15  # minimum distance of two centres along their ordering axis, as a fraction of the picture's side
_NUMBER_CONTRAST = 70.0  # minimum difference in luminance, out of 255


@dataclass(frozen=True)
class Shape:
    """A shape. `x`, `y`: centre, as fractions of the picture; `radius`: of its shorter side; `angle`: in degrees."""

    kind: str
    colour: str
    rgb: RGB
    x: float
    y: float
    radius: float
    angle: float = 0.0
    detail: float = 0.5  # thickness of a ring or cross, depth of a star: 0 to 1

    @property
    def slot(self) -> str | None:
        """The named place, or None if the centre is too close to the border between two of them."""
        column, row = _third(self.x), _third(self.y)
        return None if column is None or row is None else SLOTS[3 * row + column]


@dataclass(frozen=True)
class Number:
    """A number of one to three digits. `x`, `y`: centre; `height`: of a digit, as a fraction of the picture's."""

    text: str
    colour: str
    rgb: RGB
    x: float
    y: float
    height: float
    stroke: float = 0.0  # extra thickness, as a fraction of the height


@dataclass(frozen=True)
class Scene:
    """A plain background with shapes, in canonical order, or with a number. `aspect` is width over height."""

    background: str
    background_rgb: RGB
    shapes: tuple[Shape, ...] = ()
    number: Number | None = None
    aspect: float = 1.0
    stacked: bool = False


def split_random(split: Split, seed: int, index: int) -> random.Random:
    """Return the random generator for sample `index` (below 2**28) of a run with `seed` (below 2**28)."""
    return random.Random(SPLIT_BASE[split] + (seed << 28) + index)


def _third(value: float) -> int | None:
    if value <= 0.30:
        return 0
    if 0.40 <= value <= 0.60:
        return 1
    return 2 if value >= 0.70 else None


def _jittered(rng: random.Random, colour: str) -> RGB:
    base = rng.choice(COLOURS[colour])
    if rng.random() < 0.3:
        return base
    red, green, blue = (min(255, max(0, channel + rng.randint(-14, 14))) for channel in base)
    return red, green, blue


def _luminance(rgb: RGB) -> float:
    return 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]


def sample_scene(rng: random.Random, shapes: int | None = None, number: bool | None = None) -> Scene:
    """Sample a scene; `shapes` (1 to 3) or `number=True` determines its contents."""
    if number is None:
        number = shapes is None and rng.random() < 0.25
    aspect = 1.0 if rng.random() < 0.7 else math.exp(rng.uniform(math.log(0.62), math.log(1.6)))
    background = rng.choice(list(COLOURS))
    ground = _jittered(rng, background)
    if number:
        return Scene(background, ground, number=_sample_number(rng, background, ground, aspect), aspect=aspect)
    count = shapes or rng.choice((1, 1, 2, 2, 3))
    placed, stacked = _sample_positions(rng, count, aspect)
    looks: list[tuple[str, str]] = []
    while len(looks) < count:
        look = (rng.choice([name for name in COLOURS if name != background]), rng.choice(KINDS))
        if look not in looks:
            looks.append(look)
    drawn = []
    for (colour, kind), (x, y, radius) in zip(looks, placed, strict=True):
        angle = 0.0 if rng.random() < 0.4 else rng.uniform(-14, 14)
        if kind == "cross" and rng.random() < 0.15:
            angle += 45
        drawn.append(Shape(kind, colour, _jittered(rng, colour), x, y, radius, angle, rng.random()))
    return Scene(background, ground, tuple(drawn), aspect=aspect, stacked=stacked)


def _sample_positions(rng: random.Random, count: int, aspect: float) -> tuple[list[tuple[float, float, float]], bool]:
    """Return centres and radii in canonical order, and whether they are stacked (ordered from top to bottom)."""
    width, height = max(aspect, 1.0), max(1 / aspect, 1.0)  # in units of the shorter side
    largest = {1: 0.42, 2: 0.25, 3: 0.19}[count]
    smallest = {1: 0.13, 2: 0.12, 3: 0.11}[count]
    while True:
        stacked = count > 1 and rng.random() < 0.2
        in_slots = rng.random() < 0.6
        shared_x = rng.choice(_SLOT_CENTRES) + rng.uniform(-_SLOT_JITTER, _SLOT_JITTER)
        placed = []
        for _ in range(count):
            if in_slots:
                x, y = (rng.choice(_SLOT_CENTRES) + rng.uniform(-_SLOT_JITTER, _SLOT_JITTER) for _ in range(2))
            elif count == 1 and rng.random() < 0.5:
                x, y = rng.uniform(0.44, 0.56), rng.uniform(0.44, 0.56)
            else:
                x, y = rng.uniform(0.13, 0.87), rng.uniform(0.13, 0.87)
            if stacked:
                x = shared_x + rng.uniform(-0.015, 0.015)
            room = min(x * width, (1 - x) * width, y * height, (1 - y) * height) - 0.01
            placed.append((x, y, min(rng.uniform(smallest, largest), room)))
        placed.sort(key=lambda shape: shape[1 if stacked else 0])
        axis = 1 if stacked else 0
        ordered = all(b[axis] - a[axis] >= _ORDER_MARGIN for a, b in pairwise(placed))
        apart = all(
            math.hypot((a[0] - b[0]) * width, (a[1] - b[1]) * height) > a[2] + b[2] + 0.02
            for i, a in enumerate(placed)
            for b in placed[:i]
        )
        if ordered and apart and all(shape[2] >= smallest * 0.95 for shape in placed):
            return placed, stacked


def _sample_number(rng: random.Random, background: str, ground: RGB, aspect: float) -> Number:
    text = str(rng.randrange(*rng.choice(((0, 10), (10, 100), (10, 100), (100, 1000), (100, 1000)))))
    while True:
        colour = rng.choice(list(COLOURS))
        rgb = _jittered(rng, colour)
        if colour != background and abs(_luminance(rgb) - _luminance(ground)) >= _NUMBER_CONTRAST:
            break
    digit_width = 0.80  # of its height, in the default font, including some spacing
    height = rng.uniform(0.30, 0.65)
    height = min(height, 0.94 * aspect / (digit_width * len(text)))
    half_x, half_y = digit_width * len(text) * height / (2 * aspect), height / 2
    if rng.random() < 0.5:
        x, y = 0.5 + rng.uniform(-0.03, 0.03), 0.5 + rng.uniform(-0.03, 0.03)
    else:
        x, y = rng.random(), rng.random()
    x = min(max(x, half_x + 0.02), 1 - half_x - 0.02)
    y = min(max(y, half_y + 0.02), 1 - half_y - 0.02)
    return Number(text, colour, rgb, x, y, height, 0.0 if rng.random() < 0.7 else rng.uniform(0.01, 0.05))


@lru_cache(maxsize=512)
def _font(size: int) -> tuple[ImageFont.FreeTypeFont, float, float]:
    """Return the default font in a size, with the top and the height of its digits in pixels."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType: no scalable default font")
    _, top, _, bottom = font.getbbox("0123456789")
    return font, top, bottom - top


def _polygon(shape: Shape, cx: float, cy: float, r: float) -> list[tuple[float, float]]:
    """Return the corners, in pixels, of a polygonal shape with centre (cx, cy) and radius r."""
    if shape.kind == "square":
        points = [(0.82, 0.82), (-0.82, 0.82), (-0.82, -0.82), (0.82, -0.82)]
    elif shape.kind == "triangle":
        points = [(0.0, -0.95), (0.92, 0.75), (-0.92, 0.75)]
    elif shape.kind == "star":
        inner = 0.36 + 0.1 * shape.detail
        reach = [1 if k % 2 == 0 else inner for k in range(10)]
        points = [(reach[k] * math.sin(k * math.pi / 5), -reach[k] * math.cos(k * math.pi / 5)) for k in range(10)]
    else:
        t = 0.2 + 0.14 * shape.detail
        points = [(-t, -1), (t, -1), (t, -t), (1, -t), (1, t), (t, t)]
        points += [(-x, -y) for x, y in points]
    sin, cos = math.sin(math.radians(shape.angle)), math.cos(math.radians(shape.angle))
    return [(cx + r * (px * cos - py * sin), cy + r * (px * sin + py * cos)) for px, py in points]


def picture_size(scene: Scene, side: int) -> tuple[int, int]:
    """Return the width and height, in pixels, of a picture whose longer side is `side`."""
    if scene.aspect >= 1:
        return side, max(1, round(side / scene.aspect))
    return max(1, round(side * scene.aspect)), side


def draw_scene(scene: Scene, side: int) -> Image.Image:
    """Draw the picture in RGB with a longer side of `side` pixels, without anti-aliasing of shapes."""
    image = Image.new("RGB", picture_size(scene, side), scene.background_rgb)
    _paint(ImageDraw.Draw(image), image.size, scene, None)
    return image


def draw_owners(scene: Scene, side: int) -> Image.Image:
    """Draw the owner of each pixel (mode L): 0 for the background, then 1, 2, 3 in the order of shapes or digits."""
    image = Image.new("L", picture_size(scene, side), 0)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"
    _paint(draw, image.size, scene, 0)
    return image


def _paint(draw: ImageDraw.ImageDraw, size: tuple[int, int], scene: Scene, ground: int | None) -> None:
    """Draw the scene's objects: in their colours, or as owner numbers if `ground` is given."""
    width, height = size
    for index, shape in enumerate(scene.shapes, start=1):
        fill: RGB | int = shape.rgb if ground is None else index
        cx, cy, r = shape.x * width, shape.y * height, shape.radius * min(size)
        if shape.kind in ("circle", "ring"):
            draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)
            if shape.kind == "ring":
                hole = r * (0.72 - 0.22 * shape.detail)
                inside = scene.background_rgb if ground is None else ground
                draw.ellipse((cx - hole, cy - hole, cx + hole, cy + hole), fill=inside)
        else:
            draw.polygon(_polygon(shape, cx, cy, r), fill=fill)
    if scene.number is not None:
        number = scene.number
        tall = _font(100)[2]
        font, top, tall = _font(max(6, round(100 * number.height * height / tall)))
        stroke = round(number.stroke * tall)
        left = number.x * width - font.getlength(number.text) / 2
        start = number.y * height - tall / 2 - top
        if ground is None:
            draw.text((left, start), number.text, number.rgb, font, stroke_width=stroke)
        else:
            for index, digit in enumerate(number.text, start=1):
                draw.text((left, start), digit, index, font, stroke_width=stroke)
                left += font.getlength(digit)

"""The embedded model on pictures from another renderer than the one it was trained with."""

from __future__ import annotations

import io
import math
import random

import resvg_py
from PIL import Image

from dsvl_cli.engine.conversation import Conversation, Message, Picture, Reply
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.options import DEFAULT_PROMPT, SamplingParams
from dsvl_cli.engine.pictures.images import picture_from_bytes

COLOURS = {
    "red": "#d8232a", "green": "#1f9d3a", "blue": "#2748d6", "yellow": "#f3df2b", "black": "#101010",
    "white": "#fbfbfb", "orange": "#f78a1a", "purple": "#7d2ca3",
}  # fmt: skip
KINDS = ("circle", "square", "triangle", "star", "cross", "ring")


def shape_of(kind: str, colour: str, x: float, y: float, r: float) -> str:
    """An SVG element about (x, y), about 2r wide."""
    if kind == "circle":
        return f'<circle cx="{x}" cy="{y}" r="{r}" fill="{colour}"/>'
    if kind == "ring":
        return f'<circle cx="{x}" cy="{y}" r="{0.75 * r}" fill="none" stroke="{colour}" stroke-width="{0.42 * r}"/>'
    if kind == "square":
        return f'<rect x="{x - 0.85 * r}" y="{y - 0.85 * r}" width="{1.7 * r}" height="{1.7 * r}" fill="{colour}"/>'
    if kind == "cross":
        bars = f"M{x - r} {y}H{x + r}M{x} {y - r}V{y + r}"
        return f'<path d="{bars}" stroke="{colour}" stroke-width="{0.6 * r}" fill="none"/>'
    corners = 3 if kind == "triangle" else 10
    radii = [r] if kind == "triangle" else [r, 0.42 * r]
    points = " ".join(
        f"{x + radii[i % len(radii)] * math.sin(math.tau * i / corners):.1f},"
        f"{y - radii[i % len(radii)] * math.cos(math.tau * i / corners):.1f}"
        for i in range(corners)
    )
    return f'<polygon points="{points}" fill="{colour}"/>'


def draw_scene(rng: random.Random) -> tuple[Picture, str, str]:
    """One shape on a plain ground, anti-aliased, in some size and format."""
    kind = rng.choice(KINDS)
    colour, ground = rng.sample(list(COLOURS), 2)
    width, height = rng.randint(90, 700), rng.randint(90, 700)
    if max(width, height) > 2.5 * min(width, height):
        width = height
    r = rng.uniform(0.16, 0.32) * min(width, height)
    x, y = rng.uniform(1.2 * r, width - 1.2 * r), rng.uniform(1.2 * r, height - 1.2 * r)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f'<rect width="100%" height="100%" fill="{COLOURS[ground]}"/>{shape_of(kind, COLOURS[colour], x, y, r)}</svg>'
    )
    image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGB")
    buffer = io.BytesIO()
    kind_of_file = rng.choice(["PNG", "JPEG", "WEBP"])
    image.save(buffer, kind_of_file, quality=rng.randint(60, 95))
    return picture_from_bytes(buffer.getvalue(), f"{colour}-{kind}.{kind_of_file.lower()}"), colour, kind


def test_shapes_of_another_renderer_are_named(tiny: VisionLanguageModel) -> None:
    rng = random.Random(60)
    wrong = []
    for _ in range(60):
        picture, colour, kind = draw_scene(rng)
        question = Conversation([Message("user", (picture, DEFAULT_PROMPT))])
        text = Reply.of(tiny.stream(question, SamplingParams(max_new_tokens=40))).text.lower()
        if f"{colour} {kind}" not in text:
            wrong.append((picture.name, text))
    assert len(wrong) <= 6, wrong

"""Draws the pictures of this folder: `python examples/draw.py`. Needs `resvg-py`, which the `test` extra brings.

They come from another renderer than the pictures that the embedded model was trained on: it has to recognise shapes,
not the hand of one library. The number's digits are Pillow's own font, drawn large and made smaller.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import resvg_py
from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent
RED, GREEN, BLUE, YELLOW = "#dc1e23", "#1ea03c", "#2846d7", "#f5e128"
BLACK, WHITE, ORANGE, PURPLE = "#0f0f0f", "#ffffff", "#fa8c14", "#822da5"


def render(width: int, height: int, ground: str, *shapes: str) -> Image.Image:
    """Render shapes, given as SVG elements, on a plain ground of `width` x `height` pixels."""
    drawing = "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
            f'<rect width="{width}" height="{height}" fill="{ground}"/>',
            *shapes,
            "</svg>",
        )
    )
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=drawing)))).convert("RGB")


def circle(x: int, y: int, radius: int, colour: str) -> str:
    """Return a disc as SVG."""
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{colour}"/>'


def ring(x: int, y: int, radius: int, colour: str) -> str:
    """Return a ring as SVG; `radius` is the outer one."""
    width = 0.38 * radius
    return f'<circle cx="{x}" cy="{y}" r="{radius - width / 2}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def polygon(points: list[tuple[float, float]], colour: str) -> str:
    """Return a filled polygon as SVG."""
    corners = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polygon points="{corners}" fill="{colour}"/>'


def square(x: int, y: int, radius: int, colour: str) -> str:
    """Return a square as SVG, its sides 1.64 times `radius`."""
    half = 0.82 * radius
    return polygon([(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)], colour)


def triangle(x: int, y: int, radius: int, colour: str) -> str:
    """Return a triangle as SVG, its tip up."""
    return polygon(
        [(x, y - radius), (x + 0.93 * radius, y + 0.75 * radius), (x - 0.93 * radius, y + 0.75 * radius)], colour
    )


def cross(x: int, y: int, radius: int, colour: str) -> str:
    """Return an upright cross as SVG."""
    arm = 0.28 * radius
    bars = ((arm, radius), (radius, arm))
    return "".join(f'<rect x="{x - w}" y="{y - h}" width="{2 * w}" height="{2 * h}" fill="{colour}"/>' for w, h in bars)


def star(x: int, y: int, radius: int, colour: str) -> str:
    """Return a star of five points as SVG, one of them up."""
    lengths = [radius if index % 2 == 0 else 0.41 * radius for index in range(10)]
    turns = [index * math.pi / 5 for index in range(10)]
    points = [(x + far * math.sin(turn), y - far * math.cos(turn)) for far, turn in zip(lengths, turns, strict=True)]
    return polygon(points, colour)


def number(text: str, width: int, height: int, colour: str, ground: str) -> Image.Image:
    """Draw a number in the middle of a plain ground, half as high as the picture."""
    scale = 4
    image = Image.new("RGB", (width * scale, height * scale), ground)
    middle = (width * scale / 2, height * scale / 2)
    font = ImageFont.load_default(0.68 * height * scale)
    ImageDraw.Draw(image).text(middle, text, colour, font, anchor="mm")
    return image.resize((width, height), Image.Resampling.LANCZOS)


def main() -> None:
    """Write every picture beside this file."""
    pictures = {
        "red-circle.png": render(320, 320, WHITE, circle(160, 160, 100, RED)),
        "two-shapes.jpg": render(400, 300, BLACK, square(115, 150, 72, BLUE), triangle(290, 152, 76, YELLOW)),
        "three-shapes.png": render(
            360, 360, WHITE, star(75, 180, 60, ORANGE), circle(185, 70, 55, GREEN), square(285, 280, 62, PURPLE)
        ),
        "green-star.webp": render(300, 300, YELLOW, star(150, 155, 105, GREEN)),
        "purple-ring.jpg": render(380, 280, WHITE, ring(190, 140, 95, PURPLE)),
        "white-cross.png": render(320, 320, RED, cross(160, 160, 100, WHITE)),
        "number-42.png": number("42", 320, 240, BLACK, YELLOW),
    }
    for name, picture in pictures.items():
        picture.save(FOLDER / name, quality=90)


if __name__ == "__main__":
    main()

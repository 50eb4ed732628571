"""A picture shown in the terminal.

textual-image, where it is installed, asks the terminal once what it can do and draws by sixel (iTerm2, WezTerm, foot,
Windows Terminal ...) or by kitty's protocol. Everywhere else two pixels make a cell: a half block with a colour above
and one below.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import RenderableType

    from dsvl_cli.terminal.console import Console

_MAX_COLUMNS = 80
# The prompt and a line of text stay in sight.
_LINES_BESIDE = 3


def show(console: Console, image: Image) -> None:
    """Draw an RGB picture, as large as the window allows, on stdout.

    Raises:
        DsvlError: stdout is no terminal, or one without colours.
    """
    if not (console.colour and console.answer_is_unicode):
        raise DsvlError("no picture can be shown here", "`/see N FILE` writes it to a file")
    columns = min(console.width, _MAX_COLUMNS)
    lines = max(console.height - _LINES_BESIDE, 1)
    picture = _graphics(console, image) or _half_blocks(image, columns, lines)
    console.draw("")  # what was written before comes first
    console.renderer().print(picture, width=columns, height=lines)


def _graphics(console: Console, image: Image) -> RenderableType | None:
    """Return the picture for a terminal with pixels; None where the terminal has none or cannot be asked.

    textual-image asks when it is imported, through the process's own streams, and waits a tenth of a second for each
    of two answers; so it is imported only where both streams are a terminal and are the console's.
    """
    environment = console.environment
    if environment.stdin is not sys.__stdin__ or environment.stdout is not sys.__stdout__:
        return None
    if not environment.stdin.isatty():
        return None
    try:
        from textual_image import renderable
    except (ImportError, OSError, ValueError):
        # Not installed, or the terminal answered in a way that it does not understand.
        return None
    if renderable.Image not in (renderable.SixelImage, renderable.TGPImage):
        return None
    preview: RenderableType = renderable.Image(image, width="auto", height="auto")
    return preview


def _half_blocks(image: Image, columns: int, lines: int) -> RenderableType:
    """Draw a picture in at most so many cells, each of which is one pixel wide and two high."""
    from rich.color import Color
    from rich.segment import Segment, Segments
    from rich.style import Style

    scale = min(columns / image.width, 2 * lines / image.height)
    width, height = max(round(image.width * scale), 1), max(round(image.height * scale / 2), 1)
    pixels = iter(image.convert("RGB").resize((width, 2 * height)).tobytes())
    colours = [Color.from_rgb(*rgb) for rgb in zip(pixels, pixels, pixels, strict=True)]
    segments: list[Segment] = []
    for start in range(0, len(colours), 2 * width):
        upper, lower = colours[start : start + width], colours[start + width : start + 2 * width]
        segments += [Segment("▀", Style(color=above, bgcolor=below)) for above, below in zip(upper, lower, strict=True)]
        segments.append(Segment.line())
    return Segments(segments)

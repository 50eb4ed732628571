"""Shows a picture in the terminal.

If textual-image is installed, it queries the terminal once and draws with sixel (iTerm2, WezTerm, foot, Windows
Terminal ...) or kitty's protocol. Otherwise each cell shows two pixels: a half block with one colour above and one
below.
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
# The prompt and a line of text remain visible.
_LINES_BESIDE = 3


def show(console: Console, image: Image) -> None:
    """Draw an RGB picture on stdout, as large as the window allows.

    Raises:
        DsvlError: stdout is not a terminal, or one without colours.
    """
    if not (console.colour and console.answer_is_unicode):
        raise DsvlError("pictures cannot be shown here", "write it to a file with `/see N FILE`")
    columns = min(console.width, _MAX_COLUMNS)
    lines = max(console.height - _LINES_BESIDE, 1)
    picture = _graphics(console, image) or _half_blocks(image, columns, lines)
    console.draw("")  # flush earlier output
    console.renderer().print(picture, width=columns, height=lines)


def _graphics(console: Console, image: Image) -> RenderableType | None:
    """Return the picture for a terminal with graphics, or None if it has none or cannot be queried.

    textual-image queries the terminal on import, through the process's own streams, and waits a tenth of a second for
    each of two answers, so it is only imported if both streams are a terminal and the console's.
    """
    environment = console.environment
    if environment.stdin is not sys.__stdin__ or environment.stdout is not sys.__stdout__:
        return None
    if not environment.stdin.isatty():
        return None
    try:
        from textual_image import renderable
    except (ImportError, OSError, ValueError):
        # Not installed, or the terminal's answer is not understood.
        return None
    if renderable.Image not in (renderable.SixelImage, renderable.TGPImage):
        return None
    preview: RenderableType = renderable.Image(image, width="auto", height="auto")
    return preview


def _half_blocks(image: Image, columns: int, lines: int) -> RenderableType:
    """Draw a picture in at most `columns` x `lines` cells, each one pixel wide and two high."""
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

"""Text in columns, for terminals of any width."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = "  "
_NARROWEST_LAST = 24


def align(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the lines of a table with aligned columns, the last one wrapped between words.

    If the last column would be too narrow, it is put below the others, indented.
    """
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    below = width - before < min(widths[-1], _NARROWEST_LAST)
    lines = []
    for *first, last in rows:
        left = _GAP.join(cell.ljust(size) for cell, size in zip(first, widths, strict=False))
        if below:
            indent = " " * 4
            lines += [left.rstrip(), *_broken(indent, last, indent, width)]
        else:
            lines += _broken(left + _GAP, last, " " * before, width)
    return lines


def _broken(begin: str, text: str, indent: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, max(width - len(indent), 1), break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{begin}{lines[0]}".rstrip(), *(indent + line for line in lines[1:])]

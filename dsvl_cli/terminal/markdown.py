"""Renders an answer as Markdown on a terminal while it is generated.

Finished blocks are written once. Only the unfinished end of the text is redrawn in place, and never more of it than
fits into the window: rows that have scrolled off are not touched. If the unfinished block is taller than the window,
rows of it that can no longer change are written permanently; if there are none (in a table, whose columns grow), its
last rows are shown, and all of it when it ends.

When the width of the window changes, terminals differ in where the rows go; and when the process has been suspended,
the shell has written below them. In both cases the rows stay as they are, and the answer continues below them with the
first word that is not shown yet.

Each frame rewrites the rows from the first changed one in a single write, as synchronized output (mode 2026,
https://gist.github.com/christianparpart/d8a62cc1ab659194337d73e399004036), which terminals without it ignore.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsvl_cli.terminal.document import Block, Row, RowRenderer, parse_blocks
from dsvl_cli.terminal.sanitize import sanitize
from dsvl_cli.terminal.suspension import count_resumed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dsvl_cli.terminal.console import Console

_FRAME_SECONDS = 0.06
# The maximum share of the time spent drawing; the rest is for the model.
_MAX_LOAD = 0.2
# While a window is being dragged, rows would be left at each step.
_RESIZE_SECONDS = 0.3

_BEGIN_FRAME, _END_FRAME = "\x1b[?2026h", "\x1b[?2026l"
# Terminals disagree on the width of some characters. With wrapping off, a row that is wider than expected remains one
# row while it can be redrawn; once written permanently, it may wrap.
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"
_ERASE_BELOW = "\x1b[J"
_BLANK = Row("", "")
# What rich draws around text.
_DECORATION = str.maketrans("", "", "▌─━•")


class MarkdownStream:
    """Renders an answer on a terminal that can redraw.

    Args:
        console: its stdout is the terminal, to which nothing else writes until `close`.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._held = ""  # a \r that may be part of a \r\n
        self._text = ""  # the unfinished text, sanitized
        self._begun = False  # whether a block has been finished
        self._settled = 0  # the number of rows of the unfinished text that are written permanently
        self._settled_text = ""  # the text of these rows
        self._cut = 0  # the number of characters of the first unwritten row that are written as well
        self._live: list[Row] = []  # the rows that can be redrawn, with the cursor at the end of the last one
        self._live_from = 0  # the number of unwritten rows above them that are not shown
        self._resumed = count_resumed()
        self._renderer: RowRenderer | None = None
        self._next_frame = float("-inf")

    def write(self, text: str) -> None:
        """Add a piece of the answer, and draw if the last frame is old enough."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        self._text += sanitize(text.removesuffix("\r") if self._held else text)
        begun = self._clock()
        if begun >= self._next_frame:
            self._draw()
            ended = self._clock()
            self._next_frame = ended + max(_FRAME_SECONDS, (ended - begun) / _MAX_LOAD)

    def close(self, interrupted: bool = False) -> None:
        """Draw everything and end the line."""
        self._text += sanitize(self._held)
        self._held = ""
        self._draw(final=True)
        if interrupted:
            self._console.status("(interrupted)")

    def _draw(self, final: bool = False) -> None:
        if self._has_moved() and not final:
            self._next_frame = self._clock() + _RESIZE_SECONDS
            return
        renderer = self._fit_renderer()
        done = self._finish_blocks(renderer, final)
        rows = [] if final else self._open_rows(renderer)
        window = max(self._console.height - 1, 1)
        if len(rows) > window:
            settled = self._settle_rows(renderer, at_most=len(rows) - window)
            done += settled
            rows = rows[len(settled) :]
        self._live_from = max(len(rows) - window, 0)
        self._show(done, rows[-window:], final)

    def _has_moved(self) -> bool:
        """Leave the rows on the screen as they are if they may be elsewhere now; return whether there were any."""
        resumed = count_resumed()
        has_moved = resumed != self._resumed or (
            self._renderer is not None and self._renderer.width != self._console.width
        )
        self._resumed = resumed
        if not has_moved or not self._live:
            return False
        if self._live_from == 0:  # otherwise what is shown does not follow what was written
            self._settled += len(self._live)
            self._settled_text += _join(self._live)
        self._live = []
        self._console.draw("\r\n")
        return True

    def _fit_renderer(self) -> RowRenderer:
        """Return the renderer for the current window width, which may have changed since the last frame."""
        width = self._console.width
        if self._renderer is None or self._renderer.width != width:
            self._renderer = RowRenderer(self._console.renderer(width), width)
        return self._renderer

    def _layout(self, renderer: RowRenderer, blocks: Sequence[Block]) -> list[Row]:
        """Lay out blocks with a blank row between them, and one before the first if something precedes it."""
        rows: list[Row] = []
        for block in blocks:
            block_rows = renderer.rows(block)
            if block_rows and (rows or self._begun):
                rows.append(_BLANK)
            rows += block_rows
        return rows

    def _finish_blocks(self, renderer: RowRenderer, final: bool) -> list[Row]:
        """Remove finished blocks, which no further line can change, from the text; return their unwritten rows.

        Only complete lines count: `2` below a list is a paragraph, but `2. b` continues the list.
        """
        blocks = parse_blocks(self._text if final else self._text[: self._text.rfind("\n") + 1])
        finished = blocks if final else blocks[:-1]
        if not finished:
            return []
        rows = self._layout(renderer, finished)
        written = self._settled_text
        unwritten = self._unwritten(rows)
        # What was left on the screen when the window changed may reach into the next block.
        left = _find_covered(rows, written).left
        self._begun = self._begun or bool(rows)
        self._settled, self._cut, self._settled_text = 0, 0, left
        self._text = "" if final else "\n".join(self._text.split("\n")[blocks[-1].start :])
        return unwritten

    def _settle_rows(self, renderer: RowRenderer, at_most: int) -> list[Row]:
        """Return the first unfinished rows that can no longer change, and count them as written."""
        # Marks at the very end may become longer, and then close something else or nothing.
        blocks = parse_blocks(self._text.rstrip("*_~`"))
        settled = renderer.settled_rows(blocks[0]) if blocks else []
        if settled and self._begun:
            settled.insert(0, _BLANK)
        settled = self._from_cut(settled[self._settled : self._settled + at_most])
        self._settled += len(settled)
        self._cut = 0 if settled else self._cut
        self._settled_text += _join(settled)
        return settled

    def _open_rows(self, renderer: RowRenderer) -> list[Row]:
        return self._unwritten(self._layout(renderer, parse_blocks(self._text)))

    def _unwritten(self, rows: list[Row]) -> list[Row]:
        """Leave out the rows that are written permanently.

        If they have changed, because the window was resized or the block turned out to be shown as source text, leave
        out the text that is certainly on the screen.
        """
        if self._cut or _join(rows[: self._settled]) != self._settled_text:
            covered = _find_covered(rows, self._settled_text)
            self._settled, self._cut = covered.rows, covered.characters
            if not covered.characters:
                self._settled_text = _join(rows[: self._settled])
        return self._from_cut(rows[self._settled :])

    def _from_cut(self, rows: list[Row]) -> list[Row]:
        return [rows[0].without(self._cut), *rows[1:]] if rows and self._cut else rows

    def _show(self, done: list[Row], live: list[Row], final: bool) -> None:
        """Replace the current live rows on the screen by `done`, which are never touched again, and `live`."""
        changed = self._first_change(done, live, final)
        target = done + live
        if changed == len(target) == len(self._live) and (live or not target):
            self._live = live
            return
        if changed >= len(self._live) > 0:
            start = "\r\n"
        else:
            # Rows above the top of the window, which may have shrunk, cannot be reached.
            up = min(max(len(self._live) - 1 - changed, 0), self._console.height - 1)
            start = (f"\x1b[{up}A" if up else "") + "\r"
        written = "".join(row.styled + "\r\n" for row in target[changed : len(done)])
        redrawn = "\r\n".join(row.styled for row in target[max(changed, len(done)) :])
        self._console.draw(f"{_BEGIN_FRAME}{start}{_ERASE_BELOW}{written}{_WRAP_OFF}{redrawn}{_WRAP_ON}{_END_FRAME}")
        self._live = live

    def _first_change(self, done: list[Row], live: list[Row], final: bool) -> int:
        """Return the index of the first row to write."""
        changed = 0
        for row, shown in zip(done + live, self._live, strict=False):
            # Permanent rows that may be wider than expected are written again with wrapping on.
            if row != shown or (changed < len(done) and not row.text.isascii()):
                break
            changed += 1
        if final:
            # A key may have been echoed into the last row.
            changed = min(changed, max(len(self._live) - 1, 0))
        if live and len(done) + len(live) < len(self._live):
            # The cursor has to end up at the end of the last row.
            changed = min(changed, len(done) + len(live) - 1)
        return changed


def _join(rows: list[Row]) -> str:
    return "".join(row.text for row in rows)


@dataclass(frozen=True, slots=True)
class _Covered:
    """How much of some rows a text covers.

    Attributes:
        rows: the number of first rows that it covers.
        characters: the number of characters of the next row that it covers as well.
        left: what of the text is none of these rows', without spaces.
    """

    rows: int
    characters: int = 0
    left: str = ""


def _find_covered(rows: list[Row], text: str) -> _Covered:
    """Return what is already written in other rows."""
    left = _compact(text)
    if not left:
        return _Covered(0)
    for count, row in enumerate(rows):
        part = _compact(row.text)
        if not left.startswith(part):
            # All of the text is written, within this row; or the row has changed.
            return _Covered(count, _count_characters(row.text, len(left)) if left and part.startswith(left) else 0)
        left = left[len(part) :]
    return _Covered(len(rows), left=left)


def _count_characters(text: str, compact: int) -> int:
    """Return the length of the shortest beginning of a text with so many characters besides spaces and decoration."""
    for end in range(len(text) + 1):
        if len(_compact(text[:end])) >= compact:
            return end
    return len(text)


def _compact(text: str) -> str:
    return "".join(text.translate(_DECORATION).split())

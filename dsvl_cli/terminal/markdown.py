"""An answer as Markdown on a terminal, drawn while it comes.

Blocks that are finished are written once and for all. Only the unfinished end of the text is drawn again, in place, and
never more of it than the window shows: rows that have scrolled away are not touched. When the unfinished block is
taller than the window, those of its rows that cannot change any more are written for good; where none are (a table,
whose columns grow) its last rows are shown, and the whole when it ends.

Each frame rewrites the rows from the first changed one on, in one write, wrapped in the terminal's synchronized output
(mode 2026, https://gist.github.com/christianparpart/d8a62cc1ab659194337d73e399004036), which others ignore.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dsvl_cli.terminal.document import Block, Row, RowRenderer, parse_blocks
from dsvl_cli.terminal.sanitize import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dsvl_cli.terminal.console import Console

_FRAME_SECONDS = 0.06
# Drawing takes at most this share of the time; the rest is the model's.
_MAX_LOAD = 0.2

_BEGIN_FRAME, _END_FRAME = "\x1b[?2026h", "\x1b[?2026l"
# Terminals disagree about the width of some characters. Without wrapping, a row that is wider than expected stays one
# row while it may be drawn again; written for good it may wrap.
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"
_ERASE_BELOW = "\x1b[J"
_BLANK = Row("", "")
# What rich draws around text, apart from the text itself.
_DECORATION = str.maketrans("", "", "▌─━•")


class MarkdownStream:
    """Draws an answer on a terminal that can redraw.

    Args:
        console: its stdout is the terminal; nobody else writes to it until `close`.
        clock: seconds that never go back.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._held = ""  # a \r that may belong to a \r\n
        self._text = ""  # what is not finished, sanitized
        self._begun = False  # whether a block was finished before
        self._settled = 0  # how many rows of the unfinished text are written for good
        self._settled_text = ""  # the text of these rows
        self._live: list[Row] = []  # the rows that may be drawn again, the cursor at the end of the last
        self._renderer: RowRenderer | None = None
        self._next_frame = float("-inf")

    def write(self, text: str) -> None:
        """Add a piece of the answer, and draw when the last frame is old enough."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        self._text += sanitize(text.removesuffix("\r") if self._held else text)
        begun = self._clock()
        if begun >= self._next_frame:
            self._draw()
            ended = self._clock()
            self._next_frame = ended + max(_FRAME_SECONDS, (ended - begun) / _MAX_LOAD)

    def close(self, interrupted: bool = False) -> None:
        """Draw all that came, and end the line."""
        self._text += sanitize(self._held)
        self._held = ""
        self._draw(final=True)
        if interrupted:
            self._console.status("(interrupted)")

    def _draw(self, final: bool = False) -> None:
        renderer = self._fit_renderer()
        done = self._finish_blocks(renderer, final)
        rows = [] if final else self._open_rows(renderer)
        window = max(self._console.height - 1, 1)
        if len(rows) > window:
            settled = self._settle_rows(renderer, at_most=len(rows) - window)
            done += settled
            rows = rows[len(settled) :]
        self._show(done, rows[-window:], final)

    def _fit_renderer(self) -> RowRenderer:
        """Return the renderer for the window's width, which may have changed since the last frame."""
        width = self._console.width
        if self._renderer is None or self._renderer.width != width:
            self._renderer = RowRenderer(self._console.renderer(width), width)
        return self._renderer

    def _layout(self, renderer: RowRenderer, blocks: Sequence[Block]) -> list[Row]:
        """Lay out blocks with a blank row between them, and one before the first where something precedes it."""
        rows: list[Row] = []
        for block in blocks:
            block_rows = renderer.rows(block)
            if block_rows and (rows or self._begun):
                rows.append(_BLANK)
            rows += block_rows
        return rows

    def _finish_blocks(self, renderer: RowRenderer, final: bool) -> list[Row]:
        """Take the blocks that no further line can change from the text, and return their rows still to be written.

        Only whole lines count: `2` under a list is a paragraph, `2. b` goes on with the list.
        """
        blocks = parse_blocks(self._text if final else self._text[: self._text.rfind("\n") + 1])
        finished = blocks if final else blocks[:-1]
        if not finished:
            return []
        rows = self._layout(renderer, finished)
        unwritten = self._unwritten(rows)
        self._begun = self._begun or bool(rows)
        self._settled, self._settled_text = 0, ""
        self._text = "" if final else "\n".join(self._text.split("\n")[blocks[-1].start :])
        return unwritten

    def _settle_rows(self, renderer: RowRenderer, at_most: int) -> list[Row]:
        """Return the first of the unfinished rows that cannot change any more, and count them as written."""
        # Marks at the very end may get longer and then close something else, or nothing.
        blocks = parse_blocks(self._text.rstrip("*_~`"))
        settled = renderer.settled_rows(blocks[0]) if blocks else []
        if settled and self._begun:
            settled.insert(0, _BLANK)
        settled = settled[self._settled : self._settled + at_most]
        self._settled += len(settled)
        self._settled_text += _join(settled)
        return settled

    def _open_rows(self, renderer: RowRenderer) -> list[Row]:
        return self._unwritten(self._layout(renderer, parse_blocks(self._text)))

    def _unwritten(self, rows: list[Row]) -> list[Row]:
        """Leave out the rows that are written for good.

        Where they came out differently, because the window has another width now or the block turned out to be one
        that is shown as it was written, the rows whose text is certainly on the screen are left out.
        """
        if _join(rows[: self._settled]) != self._settled_text:
            self._settled = _count_covered(rows, self._settled_text)
            self._settled_text = _join(rows[: self._settled])
        return rows[self._settled :]

    def _show(self, done: list[Row], live: list[Row], final: bool) -> None:
        """Bring the screen from the live rows that it shows to `done`, which are never touched again, and `live`."""
        changed = self._first_change(done, live, final)
        target = done + live
        if changed == len(target) == len(self._live) and (live or not target):
            self._live = live
            return
        if changed >= len(self._live) > 0:
            start = "\r\n"
        else:
            # Rows above the top of the window, which may have shrunk, are out of reach.
            up = min(max(len(self._live) - 1 - changed, 0), self._console.height - 1)
            start = (f"\x1b[{up}A" if up else "") + "\r"
        written = "".join(row.styled + "\r\n" for row in target[changed : len(done)])
        redrawn = "\r\n".join(row.styled for row in target[max(changed, len(done)) :])
        self._console.draw(f"{_BEGIN_FRAME}{start}{_ERASE_BELOW}{written}{_WRAP_OFF}{redrawn}{_WRAP_ON}{_END_FRAME}")
        self._live = live

    def _first_change(self, done: list[Row], live: list[Row], final: bool) -> int:
        """Return the index of the first row to be written."""
        changed = 0
        for row, shown in zip(done + live, self._live, strict=False):
            # What is written for good is written with wrapping on if it may be wider than expected.
            if row != shown or (changed < len(done) and not row.text.isascii()):
                break
            changed += 1
        if final:
            # A key may have been echoed into the last row.
            changed = min(changed, max(len(self._live) - 1, 0))
        if live and len(done) + len(live) < len(self._live):
            # The cursor has to come to the end of the last row.
            changed = min(changed, len(done) + len(live) - 1)
        return changed


def _join(rows: list[Row]) -> str:
    return "".join(row.text for row in rows)


def _count_covered(rows: list[Row], text: str) -> int:
    """Count the first rows whose text was written already, in other rows; a row that was in part does not count."""
    left = _compact(text)
    if not left:
        return 0
    for count, row in enumerate(rows):
        part = _compact(row.text)
        if not left.startswith(part):
            return count
        left = left[len(part) :]
    return len(rows)


def _compact(text: str) -> str:
    return "".join(text.translate(_DECORATION).split())

"""Shows the engine's notes, choices and progress on stderr: redrawn on a terminal, occasional lines in a log."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsvl_cli.engine.units import format_bytes
from dsvl_cli.terminal.sanitize import sanitize_line
from dsvl_cli.terminal.waiting import clock_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsvl_cli.engine.progress import Choice
    from dsvl_cli.terminal.console import Console

_REDRAW_SECONDS = 0.1
_LOG_SECONDS = 30.0
_LOG_STEP_SECONDS = 1.0
_BAR_COLUMNS = 20
_SHORTEST_DETAIL = 10  # characters after the colon that are kept at the expense of other fields


@dataclass(slots=True)
class _Transfer:
    """A download or load in progress: where it began, and what was last shown of it."""

    begun_at: float
    begun_with: int
    shown_at: float = float("-inf")
    shown_tenth: int = -1


class ConsoleListener:
    """Shows the engine's events on a console; thread-safe.

    Args:
        console: where to show them.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._transfers: dict[str, _Transfer] = {}
        self._lock = threading.Lock()

    def note(self, text: str) -> None:
        """Show a note."""
        self._console.status(text)

    def choice(self, choice: Choice) -> None:
        """Show a choice and the reason for it, if the console is verbose."""
        if self._console.verbose:
            self._console.status(f"{choice.what}: {choice.value} ({choice.reason})")

    def progress(self, what: str, done: int, total: int) -> None:
        """Draw or log the progress of `what` in bytes; `what` may have the current item after a colon."""
        if self._console.quiet:
            return
        with self._lock:
            now = self._clock()
            transfer = self._transfers.setdefault(what.partition(": ")[0], _Transfer(begun_at=now, begun_with=done))
            if self._console.status_can_redraw:
                self._draw(what, done, total, transfer, now)
            else:
                self._log(what, done, total, transfer, now)
            if done >= total:
                del self._transfers[what.partition(": ")[0]]

    def _draw(self, what: str, done: int, total: int, transfer: _Transfer, now: float) -> None:
        if done >= total:
            self._console.clear_redrawn_line()
        elif now - transfer.shown_at >= _REDRAW_SECONDS:
            transfer.shown_at = now
            rate = _rate(done, transfer, now)
            drawn = bar(done, total, "━╌" if self._console.status_is_unicode else "#-")
            self._console.redraw_line(_progress_line(what, drawn, done, total, rate, self._console.status_width))

    def _log(self, what: str, done: int, total: int, transfer: _Transfer, now: float) -> None:
        tenth = 10 * done // total if total > 0 else 10
        since = now - transfer.shown_at
        is_step = tenth > transfer.shown_tenth and since >= _LOG_STEP_SECONDS
        if done >= total or is_step or since >= _LOG_SECONDS:
            transfer.shown_at, transfer.shown_tenth = now, tenth
            percent = 100 * done // total if total > 0 else 100
            self._console.status(f"{what}: {percent} % ({format_bytes(done)} of {format_bytes(total)})")


def _rate(done: int, transfer: _Transfer, now: float) -> float:
    """Return bytes per second since the beginning, or 0.0 if not known yet."""
    seconds = now - transfer.begun_at
    return (done - transfer.begun_with) / seconds if seconds > 0 else 0.0


def bar(done: int, total: int, marks: str) -> str:
    """Return a bar made of two marks: one for what is done, one for the rest."""
    filled = _BAR_COLUMNS * done // total
    return marks[0] * filled + marks[1] * (_BAR_COLUMNS - filled)


def _progress_line(what: str, drawn: str, done: int, total: int, rate: float, width: int) -> str:
    """Return what, bar, bytes, rate and time left, as far as they fit in one line of less than `width` columns.

    The rate and the bar are dropped first, then the beginning of the text after the colon.
    """
    size = f"{format_bytes(done)} of {format_bytes(total)}"
    fields = [sanitize_line(what), drawn, f"{100 * done // total} %", size]
    dispensable = [drawn, size]
    if rate > 0:
        speed, left = f"{format_bytes(rate)}/s", f"{clock_time((total - done) / rate)} left"
        fields += [speed, left]
        dispensable = [speed, drawn, size, left]
    while (excess := len("  ".join(fields)) + 1 - width) > 0:
        begin, colon, detail = fields[0].partition(": ")
        if drawn not in fields and len(detail) - excess > _SHORTEST_DETAIL:
            fields[0] = f"{begin}{colon}…{detail[excess + 1 :]}"
        elif dispensable:
            fields.remove(dispensable.pop(0))
        else:
            break
    return "  ".join(fields)[: width - 1]

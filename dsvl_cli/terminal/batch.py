"""How far a batch is, on stderr: one line drawn again and again on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.progress import bar, clock_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsvl_cli.terminal.console import Console

_REDRAW_SECONDS = 0.1
_LOG_SECONDS = 60.0
_MOST_ERRORS = 10
_DAY = 86_400


class BatchProgress:
    """Tells how far a batch is.

    Args:
        console: where to say it.
        before: how many items had their rows when the run began.
        place: where the errors can be read that are not told here.
        clock: seconds that never go back.
    """

    def __init__(self, console: Console, before: int, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._before = before
        self._place = place
        self._clock = clock
        self._began_at = clock()
        self._shown_at = self._began_at
        self._errors = 0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._began_at

    def update(self, done: int, due: int | None, failed: int, suspect: int) -> None:
        """Show it if it is time to.

        Args:
            done: items that got their rows in this run.
            due: how many this run has to do; None while that is not known.
            failed: how many of those done have an error.
            suspect: how many of them have an answer that is probably no good.
        """
        if self._console.quiet:
            return
        now = self._clock()
        redraws = self._console.status_can_redraw
        if now - self._shown_at < (_REDRAW_SECONDS if redraws else _LOG_SECONDS):
            return
        self._shown_at = now
        if redraws:
            self._console.redraw_line(self._line(done, due, failed, suspect))
        else:
            self._console.status(", ".join(self._fields(done, due, failed, suspect)))

    def error(self, message: str) -> None:
        """Tell of an item that failed; after the first few no more."""
        self._errors += 1
        if self._errors <= _MOST_ERRORS:
            self._console.error(DsvlError(message))
        elif self._errors == _MOST_ERRORS + 1:
            self._console.status(f"more errors are not told here; they are in {self._place}")

    def say(self, text: str) -> None:
        """Say a line."""
        self._console.status(text)

    def close(self) -> None:
        """Take the drawn line away."""
        self._console.clear_redrawn_line()

    def _fields(self, done: int, due: int | None, failed: int, suspect: int) -> list[str]:
        """How many, of how many, failed, suspect, rate and time left, in words; those that are not known left out."""
        total = "" if due is None else f" of {self._before + due:,}"
        rate = per_minute(done, self.seconds)
        fields = [f"{self._before + done:,}{total}", f"{failed:,} failed", f"{suspect:,} suspect"]
        if rate:
            fields.append(f"{rate} a minute")
            if due is not None:
                fields.append(f"{_duration((due - done) * self.seconds / done)} left")
        return fields

    def _line(self, done: int, due: int | None, failed: int, suspect: int) -> str:
        """As much of it as fits, with a bar where there is room."""
        fields = self._fields(done, due, failed, suspect)
        dispensable = [field for field in fields if field.startswith("0 ")]
        dispensable += [field for field in fields if field.endswith("a minute")]
        if due is not None:
            marks = "━╌" if self._console.status_is_unicode else "#-"
            drawn = bar(self._before + done, max(self._before + due, 1), marks)
            fields.insert(0, drawn)
            dispensable.append(drawn)
        dispensable += [field for field in fields if field.endswith("suspect") and field not in dispensable]
        while dispensable and len("  ".join(fields)) >= self._console.status_width:
            fields.remove(dispensable.pop(0))
        return "  ".join(fields)[: self._console.status_width - 1]


def per_minute(done: int, seconds: float) -> str:
    """Write a rate: `41`, `3.2`; "" where there is none yet."""
    if not done or seconds <= 0:
        return ""
    rate = 60 * done / seconds
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def _duration(seconds: float) -> str:
    return clock_time(seconds) if seconds < 2 * _DAY else f"{round(seconds / _DAY)} days"

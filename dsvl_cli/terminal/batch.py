"""The progress of a batch on stderr: a redrawn line on a terminal, a line from time to time in a log."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.progress import bar
from dsvl_cli.terminal.waiting import clock_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsvl_cli.terminal.console import Console

_REDRAW_SECONDS = 0.1
_LOG_SECONDS = 60.0
_TICK_SECONDS = 0.5
_MOST_ERRORS = 10
_DAY = 86_400


class BatchProgress:
    """Shows the progress of a batch; before the first row, how long its first batch has been taking.

    Args:
        console: where to show it.
        before: the number of items that were already done when the run started.
        place: where to find the errors that are not shown here.
        clock: a monotonic clock, in seconds.
        batch: how many items are answered together; None if unknown.
        due: returns the number of items to do in this run; None while unknown.
    """

    def __init__(
        self,
        console: Console,
        before: int,
        place: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        batch: int | None = None,
        due: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._console = console
        self._batch = batch
        self._due = due
        self._lock = threading.RLock()  # a signal's handler may write in the middle of an update
        self._has_rows = threading.Event()
        self._ticker: threading.Thread | None = None
        self._before = before
        self._place = place
        self._clock = clock
        self._began_at = clock()
        self._shown_at = self._began_at
        self._errors = 0

    @property
    def seconds(self) -> float:
        """The time since the start."""
        return self._clock() - self._began_at

    def start(self) -> None:
        """Show that the work has begun, and keep the clock going until the first row."""
        if self._console.quiet:
            return
        if self._console.status_can_redraw:
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()
        elif self._console.status_is_terminal:
            self._console.status(", ".join(self._first_fields()[:-1]))

    def _tick(self) -> None:
        while True:
            with self._lock:
                if self._has_rows.is_set():
                    return
                self._console.redraw_line(self._first_line())
            if self._has_rows.wait(_TICK_SECONDS):
                return

    def _first_line(self) -> str:
        fields = self._first_fields()
        while len(fields) > 1 and len(", ".join(fields)) >= self._console.status_width:
            del fields[len(fields) // 2]  # the size of the batch first, then the clock
        return ", ".join(fields)[: self._console.status_width - 1]

    def _first_fields(self) -> list[str]:
        due = self._due()
        total = "" if due is None else f" of {self._before + due:,}"
        fields = [f"{self._before:,}{total}"]
        if self._batch is not None:
            size = self._batch if due is None else min(self._batch, due)
            fields.append(f"first batch of {size:,}")
        return [*fields, clock_time(self.seconds)]

    def update(self, done: int, due: int | None, failed: int, suspect: int) -> None:
        """Update the display if it is due.

        Args:
            done: the number of items done in this run.
            due: the number of items to do in this run; None while unknown.
            failed: how many of those done have an error.
            suspect: how many of those done have a probably unusable answer.
        """
        with self._lock:
            self._has_rows.set()
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
        """Report a failed item; only the first few are shown."""
        self._errors += 1
        if self._errors <= _MOST_ERRORS:
            self._console.error(DsvlError(message))
        elif self._errors == _MOST_ERRORS + 1:
            self._console.status(f"further errors are not shown here; see {self._place}")

    def say(self, text: str) -> None:
        """Show a line."""
        self._console.status(text)

    def close(self) -> None:
        """Remove the redrawn line."""
        with self._lock:
            self._has_rows.set()
        self._console.clear_redrawn_line()

    def _fields(self, done: int, due: int | None, failed: int, suspect: int) -> list[str]:
        """Return counts, rate and remaining time in words, leaving out what is unknown."""
        total = "" if due is None else f" of {self._before + due:,}"
        rate = per_minute(done, self.seconds)
        fields = [f"{self._before + done:,}{total}", f"{failed:,} failed", f"{suspect:,} suspect"]
        if rate:
            fields.append(f"{rate} a minute")
            if due is not None:
                fields.append(f"{_duration((due - done) * self.seconds / done)} left")
        return fields

    def _line(self, done: int, due: int | None, failed: int, suspect: int) -> str:
        """Return as many fields as fit, with a bar if there is room."""
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
    """Format a rate, such as `41` or `3.2`, or "" if there is none yet."""
    if not done or seconds <= 0:
        return ""
    rate = 60 * done / seconds
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def _duration(seconds: float) -> str:
    return clock_time(seconds) if seconds < 2 * _DAY else f"{round(seconds / _DAY)} days"

"""What a wait is for, how much is done, how long it has been, and how to end it: in as many words as fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsvl_cli.engine.progress import Reading

CTRL_C_STOPS = "Ctrl-C stops"


@dataclass(slots=True)
class Wait:
    """A wait; another thread may change it while it is shown.

    Attributes:
        what: what is being done: `loading tiny`.
        way_out: how to end it.
        state: the line that is written instead if no line can be redrawn; empty for none.
        below: returns the line to show below it, at most so many columns wide.
    """

    what: str
    way_out: str = ""
    state: str = ""
    below: Callable[[int], str] | None = None

    def line(self, seconds: float, width: int) -> str:
        """Return the longest form that takes less than `width` columns."""
        clock = clock_time(seconds)
        forms = [f"{what}, {clock}" for what in self._forms()]
        if self.way_out:
            forms.insert(0, f"{forms[0]}, {self.way_out}")
        return next((form for form in forms if len(form) < width), clock)[: max(width - 1, 0)]

    def _forms(self) -> Iterator[str]:
        yield self.what


@dataclass(slots=True)
class ReadingWait(Wait):
    """The wait for an answer's first token: `reading 312 of 623 tokens`, or `looking at picture 1 of 2`."""

    reading: Reading | None = None

    def update(self, reading: Reading) -> None:
        """Take note of how far the prompt has been read; called by the model."""
        self.reading = reading

    def _forms(self) -> Iterator[str]:
        reading = self.reading  # once: it may change meanwhile
        if reading is None:
            yield self.what
        elif reading.picture:
            yield f"looking at picture {reading.picture:,} of {reading.pictures:,}"
            yield f"picture {reading.picture:,} of {reading.pictures:,}"
            yield f"picture {reading.picture:,}/{reading.pictures:,}"
        else:
            yield f"{self.what} {reading.tokens:,} of {reading.total:,} tokens"
            yield f"{self.what} {reading.tokens:,}/{reading.total:,}"
            yield f"{self.what} {100 * reading.tokens // max(reading.total, 1)}%"


def clock_time(seconds: float) -> str:
    """Format a duration as `1:02` or `3:01:02`."""
    minutes, rest = divmod(round(min(seconds, 359_999)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

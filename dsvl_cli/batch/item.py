"""What is to be done: one value for each row of the output, wherever it was found. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dsvl_cli.engine.options import IMAGE_MARK


@dataclass(frozen=True, slots=True)
class Item:
    """One row to be made.

    Attributes:
        id: names it within the run, and finds it again in the next one: a path as it was found, `ARCHIVE::MEMBER`,
            `TABLE::ROW`, or the `custom_id` of a request.
        path: where its picture lies, as it is shown; may hold any byte of a file name as a lone surrogate.
        read: gives the encoded pictures, most often one; any thread may call it. Raises ImageError.
        parts: what it asks itself, instead of the run's question: texts, and None where its next picture stands. No
            text is searched for marks.
        system: of its own, instead of the run's.
        sampling: of its own: changes of the run's `SamplingParams` by field.
        root: the folder that was searched for it, whose tree sidecars mirror; "" where it was named itself.
    """

    id: str
    path: str
    read: Callable[[], Sequence[bytes]] = field(repr=False, compare=False)
    parts: tuple[str | None, ...] | None = None
    system: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    root: str = ""

    @property
    def prompt(self) -> str | None:
        """What it asks itself, as its row shows it; None where that is the run's question.

        `<image>` stands for a picture, unless all pictures come before the text.
        """
        if self.parts is None:
            return None
        pictures = self.parts.count(None)
        if all(part is None for part in self.parts[:pictures]):
            return "".join(part for part in self.parts if part is not None)
        return "".join(IMAGE_MARK if part is None else part for part in self.parts)

"""An item of work: becomes one row of the output, whatever its source. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dsvl_cli.engine.conversation import Role
from dsvl_cli.engine.options import IMAGE_MARK


@dataclass(frozen=True, slots=True)
class Item:
    """The source of one row.

    Attributes:
        id: identifies the item within the run and across runs: a path as found, `ARCHIVE::MEMBER`, `TABLE::ROW`, or
            the `custom_id` of a request.
        path: the location of the picture for display; undecodable bytes of a file name are lone surrogates.
        read: returns the encoded pictures, usually one. Thread-safe. Raises ImageError.
        parts: the item's own prompt in place of the run's: texts, and None for each picture. Image marks in these
            texts have no effect.
        earlier: the turns before that prompt, oldest first, with parts in the same form. Their pictures come first.
        notes: what is to be said about the item, such as a field of a request without effect.
        system: overrides the run's system prompt.
        sampling: overrides fields of the run's `SamplingParams`.
        samples: how many answers to give, in place of the run's number; None for that.
        prompts: the run's prompts as an earlier run filled them in for this item, by question; None to fill them in.
        own_id: whether the id was given by the source, as a `custom_id` is, and is not a path.
        root: the searched folder that contains the item, whose tree sidecars mirror; "" if it was named directly.
    """

    id: str
    path: str
    read: Callable[[], Sequence[bytes]] = field(repr=False, compare=False)
    parts: tuple[str | None, ...] | None = None
    earlier: tuple[tuple[Role, tuple[str | None, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    system: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    root: str = ""
    own_id: bool = False
    prompts: Mapping[str, str] | None = None
    samples: int | None = None

    @property
    def prompt(self) -> str | None:
        """The item's own prompt as its row shows it; None if it uses the run's.

        Pictures appear as `<image>`, unless they all come before the text.
        """
        if self.parts is None:
            return None
        pictures = self.parts.count(None)
        if all(part is None for part in self.parts[:pictures]):
            return "".join(part for part in self.parts if part is not None)
        return "".join(IMAGE_MARK if part is None else part for part in self.parts)

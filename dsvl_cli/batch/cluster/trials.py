"""Finds the picture that ends the process of its worker, so that it becomes an error row and the others go on.

Before a block of pictures is worked on, a note of it is written to the folder of the output, and deleted afterwards.
Who finds the note of an earlier worker takes the pictures one at a time, and notes each: so the one that ended the
process is known. It gets a second chance, since a machine that was lost is no picture's fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dsvl_cli.batch.cluster.place import Place
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.row import Row
from dsvl_cli.errors import ImageError

MOST_ENDED = 2  # processes that a picture may end when it is alone
_GIVEN_UP = "given-up-"


class BlockTrials:
    """The notes of one worker.

    Args:
        place: the folder of all notes.
        caption: turns items into rows.
    """

    def __init__(self, place: Place, caption: Callable[[Iterable[Item]], Iterator[Row]]) -> None:
        self._place = place
        self._caption = caption
        names = (str(info.path).rpartition("/")[2] for info in place.files())
        self._given_up = {name.removeprefix(_GIVEN_UP) for name in names if name.startswith(_GIVEN_UP)}

    def run(self, items: Sequence[Item]) -> Iterator[Row]:
        """Yield a row for each item; the ids of the items are numbers.

        Raises:
            DsvlError: a note cannot be read or written.
        """
        note = self._place.within(f"block-{items[0].id}-{items[-1].id}-{len(items)}.json")
        earlier = note.read()
        if earlier is None:
            note.write(_note(None, {}))
            # Known from an earlier block: how many are in this one is another matter.
            yield from self._caption([self._checked(item) for item in items])
        else:
            yield from self._run_singly(items, note, earlier)
        note.delete()

    def _run_singly(self, items: Sequence[Item], note: Place, earlier: bytes) -> Iterator[Row]:
        ended = _read(earlier)
        for item in items:
            if ended.get(item.id, 0) >= MOST_ENDED and item.id not in self._given_up:
                self._given_up.add(item.id)
                self._place.within(f"{_GIVEN_UP}{item.id}").write(b"")
            if item.id not in self._given_up:
                note.write(_note(item.id, ended))
            yield from self._caption([self._checked(item)])

    def _checked(self, item: Item) -> Item:
        if item.id not in self._given_up:
            return item

        def refuse() -> Sequence[bytes]:
            raise ImageError(f"{item.path}: given up: {MOST_ENDED + 1} processes ended while it was being worked on")

        return Item(item.id, item.path, refuse, prompts=item.prompts)


def _note(number: str | None, ended: dict[str, int]) -> bytes:
    return json.dumps({"now": number, "ended": ended}).encode()


def _read(data: bytes) -> dict[str, int]:
    """Return how many processes each picture has ended; the one that was being worked on has ended another."""
    try:
        fields: dict[str, Any] = json.loads(data)
        ended = {str(number): int(times) for number, times in fields["ended"].items()}
        now = fields["now"]
    except (ValueError, LookupError, TypeError, AttributeError):  # cut off while it was written
        return {}
    if now is not None:
        ended[str(now)] = ended.get(str(now), 0) + 1
    return ended

"""Which row belongs to an item, however the path in its id was spelled."""

from __future__ import annotations

import os
from pathlib import Path

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.batch.sources.identity import canonical
from dsvl_cli.engine.pictures.images import is_path


class KnownIds:
    """The ids of a journal by what they stand for.

    Memory: nothing for ids that are spelled in the usual way, about 300 bytes for each other one.

    Args:
        folder: the real folder of the output.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._here = os.path.realpath(os.curdir)
        self._base = self._here
        self._ids: dict[str, str] = {}  # canonical spelling -> the id in the journal, where they differ

    def base_for_settings(self) -> str:
        """Return the current folder as seen from that of the output, so that both can be moved together."""
        try:
            return os.path.relpath(self._here, self._folder)
        except ValueError:  # on different drives
            return self._here

    def set_base(self, base: str | None) -> None:
        """Set the folder that relative paths in the journal refer to; None if it is not known."""
        self._base = self._here if base is None else os.path.realpath(self._folder / base)

    def note(self, id: str, path: str) -> None:  # noqa: A002
        """Add an id of the journal."""
        if id == path or "::" in id:
            spelled = canonical(id, self._base)
            if spelled != id:
                self._ids.setdefault(spelled, id)

    def find(self, item: Item, journal: Journal) -> str:
        """Return the id that an item has in the journal, or the one that its row is to get."""
        if item.own_id:
            return item.id
        is_elsewhere = self._base != self._here and is_path(item.id)
        spelled = os.path.join(self._here, item.id) if is_elsewhere else item.id
        spelled = canonical(spelled, self._base)
        if journal.status(spelled) is not None:
            return spelled
        if spelled in self._ids:
            return self._ids[spelled]
        if self._base == self._here:
            return item.id
        # The output may have been moved away from its pictures: then the spelling is all that there is to go by.
        is_moved = journal.status(item.id) is not None and not os.path.lexists(os.path.join(self._base, item.path))
        return item.id if is_moved else spelled

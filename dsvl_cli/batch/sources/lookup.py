"""Finds the item that a row was made from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.row import Row
from dsvl_cli.batch.sources.scan import ScanOptions, scan
from dsvl_cli.engine.pictures.access import Access
from dsvl_cli.errors import DsvlError, NotFetched


class ItemLookup:
    """Finds the items of rows, and never fetches: a row is compared or shown with what is on this machine.

    Caches the items of one archive or table, so look rows up sorted by name.

    Args:
        column: the picture column of Parquet tables, if the user named one.
        outside: whether tables and requests may name files out of their folders.
    """

    def __init__(self, column: str | None = None, *, outside: bool = False) -> None:
        self._options = ScanOptions(every=True, column=column, access=Access(offline=True, outside=outside))
        self._holder = ""
        self._items: Mapping[str, Item] = {}

    def find(self, row: Row) -> Item | None:
        """Return the current item of a row, or None if it is gone or its source is unknown."""
        if os.path.lexists(row.path):
            return next(scan([row.path], options=self._options), None)
        holder, _, place = row.path.partition("::")
        return self._find_within(holder, row) if place else None

    def read(self, row: Row) -> Sequence[bytes] | None:
        """Return the encoded pictures of a row's item, or None if they cannot be read.

        Raises:
            NotFetched: one has an address.
        """
        item = self.find(row)
        if item is None:
            return None
        try:
            return item.read()
        except NotFetched:
            raise
        except DsvlError:
            return None

    def _find_within(self, holder: str, row: Row) -> Item | None:
        if holder != self._holder:
            self._holder = holder
            try:
                self._items = {item.id: item for item in scan([holder], options=self._options)}
            except DsvlError:
                self._items = {}
        # Its id may be an older spelling of the path.
        return self._items.get(row.id) or self._items.get(row.path)

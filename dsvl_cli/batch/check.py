"""Finds the stale rows of an output: those whose picture has changed or is gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dsvl_cli.batch.captioner import hash_pictures
from dsvl_cli.batch.row import Row
from dsvl_cli.batch.sources.lookup import ItemLookup
from dsvl_cli.engine.pictures.images import is_path
from dsvl_cli.errors import NotFetched

CHANGED, GONE = "the picture has changed", "the picture is gone"


def find_stale(rows: Iterable[Row], column: str | None = None, *, outside: bool = False) -> Iterator[tuple[Row, str]]:
    """Yield the rows whose picture has changed or is gone, each with the reason, in the given order.

    Rows from archives, tables and request files are compared with their current contents. Addresses are not fetched:
    their rows count as fresh.

    Args:
        rows: sorted by name.
        column: the picture column of Parquet tables, if the user named one.
        outside: whether tables and requests may name files out of their folders.
    """
    lookup = ItemLookup(column, outside=outside)
    for row in rows:
        if not is_path(row.path):
            continue
        if lookup.find(row) is None:
            yield row, GONE
        elif not _is_current(lookup, row):
            yield row, CHANGED


def _is_current(lookup: ItemLookup, row: Row) -> bool:
    try:
        data = lookup.read(row)
    except NotFetched:
        return True
    return (None if data is None else hash_pictures(data)) == row.sha256

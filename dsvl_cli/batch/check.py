"""Which rows of an output are stale: their picture is not any more what it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dsvl_cli.batch.captioner import hash_pictures
from dsvl_cli.batch.row import Row
from dsvl_cli.batch.sources.lookup import ItemLookup
from dsvl_cli.engine.pictures.images import is_address

CHANGED, GONE = "the picture has changed", "the picture is gone"


def find_stale(rows: Iterable[Row], column: str | None = None) -> Iterator[tuple[Row, str]]:
    """Give the rows whose picture has changed or is gone, with the reason, in their order.

    Rows of archives, tables and requests are compared with what these hold now. An address is not fetched: its row
    counts as fresh.

    Args:
        rows: in order of name.
        column: of a table, the one with the pictures, where it was named.
    """
    lookup = ItemLookup(column)
    for row in rows:
        if is_address(row.path):
            continue
        if lookup.find(row) is None:
            yield row, GONE
        elif _hash(lookup, row) != row.sha256:
            yield row, CHANGED


def _hash(lookup: ItemLookup, row: Row) -> str | None:
    data = lookup.read(row)
    return None if data is None else hash_pictures(data)

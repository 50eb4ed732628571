"""Which rows of an output are stale: their picture is not any more what it was."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dsvl_cli.batch.captioner import hash_pictures
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.row import Row
from dsvl_cli.batch.scan import scan
from dsvl_cli.engine.images import is_address, read_file
from dsvl_cli.errors import DsvlError, ImageError

CHANGED, GONE, UNKNOWN = "the picture has changed", "the picture is gone", "where its picture lies is not known"


def find_stale(rows: Iterable[Row]) -> Iterator[tuple[Row, str]]:
    """Give the rows whose picture has changed or is gone, with the reason, in their order.

    Rows of archives, tables and requests are compared with what these hold now. An address is not fetched: its row
    counts as fresh.
    """
    holder, items = "", {}
    for row in rows:
        if row.path != row.id and "::" in row.id:
            if row.id.split("::")[0] != holder:
                holder = row.id.split("::")[0]
                items = _items_of(holder)
            reason = _compare_item(row, items)
        elif is_address(row.path):
            reason = None
        else:
            reason = _compare_file(row)
        if reason is not None:
            yield row, reason


def _items_of(holder: str) -> dict[str, Item]:
    try:
        return {item.id: item for item in scan([holder])}
    except DsvlError:
        return {}


def _compare_item(row: Row, items: dict[str, Item]) -> str | None:
    if row.id not in items:
        return GONE
    try:
        return None if hash_pictures(items[row.id].read()) == row.sha256 else CHANGED
    except ImageError:
        return None if row.sha256 is None else CHANGED


def _compare_file(row: Row) -> str | None:
    if row.id != row.path and not os.path.lexists(row.path):
        return UNKNOWN
    if not os.path.lexists(row.path):
        return GONE
    try:
        digest = hash_pictures([read_file(Path(row.path), row.path)])
    except ImageError:
        digest = None  # as it was when the row was made, if it has no digest
    return None if digest == row.sha256 else CHANGED

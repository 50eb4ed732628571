"""The step that reads pictures, on whatever machine has room for it, apart from the actors that ask about them.

Rows of a manifest become rows with the encoded pictures, or with why they cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dsvl_cli.batch.cluster.manifest import Entry, decode, to_entries
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.row import Failure
from dsvl_cli.batch.sources.remote_files import read_remote
from dsvl_cli.batch.sources.scan import ScanOptions, file_item, scan
from dsvl_cli.batch.templates import fill_prompts
from dsvl_cli.engine.pictures.access import Access
from dsvl_cli.engine.pictures.addresses import decode_data_address
from dsvl_cli.errors import DsvlError, ImageError, NotFetched

if TYPE_CHECKING:
    import pyarrow

_READERS = 8
_PIECE_BYTES = 64 * 2**20  # of encoded pictures that leave the step at a time
_ERRORS = {"ImageError": ImageError, "NotFetched": NotFetched}
_HOLDERS = 2  # archives and tables whose contents are kept


@dataclass(frozen=True, slots=True)
class Reading:
    """How pictures are read; can be sent to other machines.

    Attributes:
        access: what names in lists and tables may lead to.
        column: the column of tables that has the pictures.
        prompts: the questions by name, whose variables are filled in.
        sidecar: the extension of the files with captions.
    """

    access: Access
    column: str | None
    prompts: Mapping[str, str]
    sidecar: str

    @property
    def fills(self) -> bool:
        """Whether the questions may differ from picture to picture."""
        return any(brace in prompt for prompt in self.prompts.values() for brace in "{}")

    def read(self, entry: Entry) -> Sequence[bytes]:
        """Return the encoded pictures of an entry.

        Raises:
            DsvlError: they cannot be read.
        """
        if entry.kind == "data":
            return (decode_data_address(entry.address),)
        if entry.kind == "remote":
            return (read_remote(entry.address),)
        return self._item(entry).read()

    def fill(self, entry: Entry) -> Mapping[str, str]:
        """Return the questions for an entry.

        Raises:
            ImageError: it has no caption.
        """
        where = entry.whole_address
        return fill_prompts(self.prompts, Item(where, where, tuple), self.sidecar)

    def _item(self, entry: Entry) -> Item:
        access = self.access.as_typed() if entry.kind == "typed-url" else self.access
        if entry.kind in ("held", "remote-held"):
            found = _list_holder(entry.address, self.column, access).get(entry.whole_address)
        elif entry.kind == "file":
            return file_item(entry.address)
        else:
            found = next(scan([entry.address], options=ScanOptions(access=access)), None)
        if found is None:
            raise ImageError(f"{entry.path}: is no longer there")
        return found


@lru_cache(maxsize=_HOLDERS)
def _list_holder(address: str, column: str | None, access: Access) -> Mapping[str, Item]:
    options = ScanOptions(every=True, column=column, access=access, remote=True)
    return {item.id: item for item in scan([address], options=options)}


def read_pictures(batch: pyarrow.Table, reading: Reading) -> Iterator[pyarrow.Table]:
    """Read the pictures of rows of a manifest.

    Yields:
        tables of `number`, `id` and `path`, with `pictures`, `prompts` (JSON, or null for those of the job), and why
        there are none: `failure` (JSON, or null) and `unfilled` (a text, or null).
    """
    rows: list[dict[str, Any]] = []
    size = 0
    with ThreadPoolExecutor(_READERS, "read") as pool:
        entries = to_entries(batch)
        for start in range(0, len(entries), _READERS):  # so that few pictures are held that cannot leave yet
            for row in pool.map(lambda entry: _read_row(entry, reading), entries[start : start + _READERS]):
                rows.append(row)
                size += sum(map(len, row["pictures"]))
            if size >= _PIECE_BYTES:
                yield _table(rows)
                rows, size = [], 0
    if rows:
        yield _table(rows)


def _read_row(entry: Entry, reading: Reading) -> dict[str, Any]:
    pictures: Sequence[bytes] = ()
    prompts = failure = unfilled = None
    try:
        pictures = reading.read(entry)
        if reading.fills:
            try:
                prompts = json.dumps(dict(reading.fill(entry)))
            except ImageError as error:
                unfilled = _name_as_found(error.message, entry)
    except DsvlError as error:
        failure = Failure(type(error).__name__, _name_as_found(error.message, entry))
    except MemoryError:
        failure = Failure("ImageError", f"{entry.path}: not enough memory to read it")
    except OSError as exc:
        failure = Failure("ImageError", f"{entry.path}: cannot be read: {exc.strerror or 'unknown error'}")
    except Exception as exc:  # whatever is wrong with one picture must not end the others
        failure = Failure("ImageError", f"{entry.path}: cannot be read: {type(exc).__name__}")
    found = None if failure is None else json.dumps([failure.type, failure.message])
    return {
        "number": entry.number,
        "id": _bytes(entry.id),
        "path": _bytes(entry.path),
        "pictures": list(pictures),
        "prompts": prompts,
        "failure": found,
        "unfilled": unfilled,
    }


def _name_as_found(message: str, entry: Entry) -> str:
    """Name a picture in a message as the user does, not by its address."""
    # What a table names is relative to its folder, and the table to that of the first run.
    above = entry.address.removesuffix(entry.id.partition("::")[0])
    for name in (entry.whole_address, entry.address, above + entry.path):
        if message.startswith(f"{name}:"):
            return entry.path + message[len(name) :]
    return message


def to_item(row: Mapping[str, Any]) -> Item:
    """Return the item of a row of `read_pictures`; its id is the number of the row in text."""
    path = decode(row["path"])

    def read() -> Sequence[bytes]:
        if row["failure"] is None:
            return row["pictures"]  # type: ignore[no-any-return]
        kind, message = json.loads(row["failure"])
        raise _ERRORS.get(kind, DsvlError)(message)

    item = Item(str(row["number"]), path, read)
    return item if row["prompts"] is None else replace(item, prompts=json.loads(row["prompts"]))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    import pyarrow as pa

    schema = pa.schema(
        [
            ("number", pa.int64()),
            ("id", pa.binary()),
            ("path", pa.binary()),
            ("pictures", pa.large_list(pa.large_binary())),
            ("prompts", pa.string()),
            ("failure", pa.string()),
            ("unfilled", pa.string()),
        ]
    )
    return pa.Table.from_pylist(rows, schema=schema)

"""The pictures of a cluster's job, as a Parquet table of (number, id, address) that all machines read.

An address names a picture on every machine: rows of the table are sent around, never open files. A picture keeps its
number for good, and new ones are appended: the numbers are what the job's checkpoint is made of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Literal

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources.identity import canonical
from dsvl_cli.batch.sources.remote_files import is_remote
from dsvl_cli.engine.pictures.addresses import is_data_address
from dsvl_cli.engine.pictures.images import is_address
from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    import pyarrow

    from dsvl_cli.batch.cluster.place import Place

Kind = Literal["file", "held", "url", "typed-url", "data", "remote", "remote-held"]

PART_ROWS = 100_000
_PART = "part-{:06d}.parquet"
_KEY_BYTES = 12  # among a billion pictures, two share a key with a chance of 1 in 10^11


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture of a manifest.

    Attributes:
        number: its number in the job, which the manifest gives.
        kind: how it is read: a `file`, `held` by an archive or a table, a `url` that a list names or a user typed,
            `data`, or `remote` in an object store.
        id, path: those of its item.
        address: the absolute path of the file or of its holder, a URL, or a data address.
        place: where it is in its holder; "" for other kinds.
    """

    number: int
    kind: Kind
    id: str
    path: str
    address: str
    place: str = ""

    @property
    def whole_address(self) -> str:
        """The address with the place."""
        return f"{self.address}::{self.place}" if self.kind in ("held", "remote-held") else self.address


class Addresses:
    """Turns items into entries.

    Args:
        typed: the sources as the user typed them.
        base: the folder in which the first run was started: ids that are relative paths refer to it.
    """

    def __init__(self, typed: Iterable[str], base: str) -> None:
        self._typed = frozenset(typed)
        self._base = base
        self._here = os.path.realpath(os.curdir)

    def entry(self, item: Item) -> Entry:
        """Return an entry for an item.

        Raises:
            UsageError: it is a request, which only the local engine answers.
        """
        if item.own_id or item.parts is not None:
            raise UsageError(
                "--engine ray takes pictures, and no requests with questions of their own", "leave out --engine ray"
            )
        if item.address:
            return Entry(0, self._kind_of(item.address), item.id, item.path, item.address)
        holder, mark, place = item.id.partition("::")
        if is_remote(item.id):
            kind: Kind = "remote-held" if mark else "remote"
            return Entry(0, kind, item.id, item.path, holder, place)
        id_ = item.id if self._here == self._base else canonical(os.path.join(self._here, item.id), self._base)
        if mark and os.path.isfile(holder):
            return Entry(0, "held", id_, item.path, self._absolute(holder), place)
        return Entry(0, "file", id_, item.path, self._absolute(item.id))

    def _kind_of(self, address: str) -> Kind:
        if is_data_address(address):
            return "data"
        if not is_address(address):
            return "remote"
        return "typed-url" if address in self._typed else "url"

    def _absolute(self, path: str) -> str:
        # Relative to the root, canonical paths are absolute without their first slash.
        return os.path.join(os.sep, canonical(os.path.join(self._here, path), os.sep))


class Manifest:
    """The table, in one folder; for one process at a time.

    Memory: about 100 bytes per picture while it is being extended.

    Args:
        place: the folder.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.count = 0
        self._parts = 0
        self._keys: set[int] = set()

    def load(self) -> None:
        """Read which pictures are there already.

        Raises:
            DsvlError: it cannot be read.
        """
        import pyarrow.parquet as pq

        with self.place.explained("read"):
            for info in self._part_files():
                table = pq.read_table(info, columns=["address", "place"], filesystem=self.place.filesystem)
                for batch in table.to_batches(PART_ROWS):
                    pairs = zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
                    self._keys.update(_key(address, place) for address, place in pairs)
                self.count += table.num_rows
                self._parts += 1

    def extend(self, entries: Iterable[Entry], tell: Callable[[int], None] = lambda _: None) -> int:
        """Append the pictures that are new, and return how many were found, known ones included.

        Args:
            entries: the pictures; they are numbered here.
            tell: called with the number of pictures from time to time.

        Raises:
            DsvlError: it cannot be written, or finding pictures fails.
        """
        found = 0
        self.place.make()

        def fresh() -> Iterator[Entry]:
            nonlocal found
            for entry in entries:
                found += 1
                if found % 1000 == 0:
                    tell(found)
                key = _key(_encode(entry.address), _encode(entry.place))
                if key not in self._keys:
                    self._keys.add(key)
                    yield entry

        waiting = fresh()
        while some := list(islice(waiting, PART_ROWS)):
            self._write(some)
        return found

    def _write(self, entries: list[Entry]) -> None:
        import pyarrow.parquet as pq

        columns = {
            "number": range(self.count, self.count + len(entries)),
            "kind": [entry.kind for entry in entries],
            **{
                name: [_encode(getattr(entry, name)) for entry in entries]
                for name in ("id", "path", "address", "place")
            },
        }
        part = self.place.within(_PART.format(self._parts))
        with part.explained("written"):
            path = f"{part.path}.new" if part.is_local else part.path
            pq.write_table(_table(columns), path, filesystem=part.filesystem)
            if part.is_local:  # an object appears once it is complete
                os.chmod(path, 0o600)  # URLs may have passwords
                part.filesystem.move(path, part.path)
        self.count += len(entries)
        self._parts += 1

    def _part_files(self) -> list[str]:
        return [str(info.path) for info in self.place.files() if str(info.path).endswith(".parquet")]

    def entries(self) -> Iterator[Entry]:
        """Yield all entries.

        Raises:
            DsvlError: it cannot be read.
        """
        import pyarrow.parquet as pq

        with self.place.explained("read"):
            for part in self._part_files():
                for batch in pq.ParquetFile(part, filesystem=self.place.filesystem).iter_batches(10_000):
                    yield from to_entries(batch)


def to_entries(batch: pyarrow.RecordBatch | pyarrow.Table) -> list[Entry]:
    """Convert rows of the table."""
    names = ("number", "kind", "id", "path", "address", "place")
    rows = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    return [Entry(number, kind, *map(decode, texts)) for number, kind, *texts in rows]


def _table(columns: Mapping[str, object]) -> pyarrow.Table:
    import pyarrow as pa

    texts = [(name, pa.binary()) for name in ("id", "path", "address", "place")]  # names need not be UTF-8
    return pa.table(columns, schema=pa.schema([("number", pa.int64()), ("kind", pa.string()), *texts]))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """Return the text of a cell."""
    return data.decode("utf-8", "surrogateescape")


def _key(address: bytes, place: bytes) -> int:
    digest = blake2b(address + b"\0\0" + place, digest_size=_KEY_BYTES).digest()
    return int.from_bytes(digest, "big")

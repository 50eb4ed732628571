"""Pictures in Parquet tables, one item per row. Imports no torch, and pyarrow only when a table is opened."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources.sequential_reader import SequentialReader, Stream
from dsvl_cli.engine.pictures.access import FOREIGN, Access, check_inside, shown_address
from dsvl_cli.engine.pictures.images import MAX_BYTES, read_file
from dsvl_cli.errors import DsvlError, ImageError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

# Column names taken for the pictures, if the type of the column can hold them.
COLUMN_NAMES = (
    "image", "images", "picture", "pictures", "photo", "photos", "img", "jpg", "jpeg", "png", "webp", "gif", "tiff",
    "image_bytes", "image_data", "image_path", "image_file", "file_name", "filename",
)  # fmt: skip
_SUFFIXES = (".parquet", ".parq", ".pq")
_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 256
_BUFFER_BYTES = 2**20


def scan_parquet(path: str, column: str | None = None, access: Access = FOREIGN) -> Iterator[Item]:
    """Yield an item for each row of a table, or of all tables in a folder sorted by name; ids are `TABLE::ROW`, from 0.

    This only reads the footers, and the column if it holds paths. Pictures are read on demand, some MiB at a time, or
    page by page if the table's pages are larger.

    Args:
        path: a file or a folder.
        column: the column with the pictures: encoded bytes, Hugging Face's {bytes, path}, or paths relative to the
            table's folder, or lists of these. By default it is detected by name or type.
        access: whether paths may lead out of the table's folder.

    Raises:
        DsvlError: pyarrow is missing, there is no table, a table cannot be read, or the column is missing or
            ambiguous. Rows of earlier tables are yielded first.
    """
    tables: list[_Table] = []
    reader = SequentialReader(partial(_beginning, tables), partial(_stream, tables), _size)
    first = 0
    for name in _find_tables(path):
        table = _Table.open(name, first, column)
        tables.append(table)
        if table.has_paths:
            for row, cell in enumerate(_paths(table)):
                names = cell if isinstance(cell, list) else [cell]
                has_name = bool(names) and isinstance(names[0], str) and bool(names[0])
                shown = os.path.join(table.folder, shown_address(names[0])) if has_name else f"{name}::{row}"
                yield Item(f"{name}::{row}", shown, partial(_pictures, cell, table.folder, f"{name}::{row}", access))
        else:
            for row in range(table.rows):
                id_ = f"{name}::{row}"
                yield Item(id_, id_, partial(_read, reader, first + row, table.folder, id_, access))
        first += table.rows


@dataclass(frozen=True)
class _Table:
    """The metadata of a table, from its footer.

    Attributes:
        name: the path of the table.
        first: the index of its first row among the rows of all tables.
        column: the column with the pictures.
        has_paths: whether the column holds paths instead of pictures.
        group_starts: the first row of each row group.
        rows: the number of rows.
        batch_rows: the number of rows read at once.
    """

    name: str
    first: int
    column: str
    has_paths: bool
    group_starts: tuple[int, ...]
    rows: int
    batch_rows: int

    @property
    def folder(self) -> str:
        """The folder that relative paths refer to."""
        return os.path.dirname(self.name)

    @classmethod
    def open(cls, name: str, first: int, column: str | None) -> _Table:
        """Read the footer of a table.

        Raises:
            DsvlError: see `scan_parquet`.
        """
        try:
            import pyarrow
        except ImportError as exc:
            raise DsvlError(f"{name}: Parquet support is not installed", "pip install 'dsvl[parquet]'") from exc
        try:
            with _open(name) as file:
                schema, metadata = file.schema_arrow, file.metadata
                chosen = _choose_column(schema, column, name)
                starts, size = [0], 0
                for group in range(metadata.num_row_groups):
                    part = metadata.row_group(group)
                    starts.append(starts[-1] + part.num_rows)
                    chunks = (part.column(n) for n in range(part.num_columns))
                    size += sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == chosen)
        except FileNotFoundError as exc:
            raise DsvlError(f"{name}: no such file") from exc
        except UnicodeDecodeError as exc:
            raise DsvlError(f"{name}: the name of a column is not UTF-8", "rename it") from exc
        except (OSError, pyarrow.ArrowException) as exc:
            raise DsvlError(f"{name}: not a Parquet table, or damaged or cut off") from exc
        rows = starts.pop()
        batch_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(size, 1)))
        return cls(name, first, chosen, _kind(schema.field(chosen).type) == "path", tuple(starts), rows, batch_rows)


def _find_tables(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    found = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if name.lower().endswith(_SUFFIXES) and not name.startswith((".", "_"))
    ]
    if not found:
        raise DsvlError(f"{path}: no Parquet table in this folder")
    return sorted(found)


def _open(name: str) -> ParquetFile:
    from pyarrow.parquet import ParquetFile

    # With a buffer of 1 MiB: otherwise the column is read one whole row group at a time.
    return ParquetFile(name, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def _choose_column(schema: pyarrow.Schema, wanted: str | None, name: str) -> str:
    kinds = {field.name: kind for field in schema if (kind := _kind(field.type))}
    if wanted is not None:
        if wanted in kinds:
            return wanted
        raise DsvlError(f"{name}: column {wanted} does not exist or cannot hold pictures", _columns_hint(schema))
    named = [column for column in kinds if column.lower() in COLUMN_NAMES]
    binary = [column for column, kind in kinds.items() if kind == "bytes"]
    found = [column for column in named if column in binary] or named or binary
    if not found:
        raise DsvlError(f"{name}: no column holds pictures", _columns_hint(schema))
    if len(found) > 1:
        raise DsvlError(
            f"{name}: {len(found)} columns could hold the pictures: {', '.join(found)}", f"--column {found[0]}"
        )
    return str(found[0])


def _columns_hint(schema: pyarrow.Schema) -> str:
    return f"its columns: {', '.join(f'{field.name} ({field.type})' for field in schema)}"[:500]


def _kind(kind: pyarrow.DataType) -> str | None:
    """Return whether a column type can hold `bytes` or a `path`; None if it can hold neither."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        return _kind(kind.value_type)
    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return "bytes" if index >= 0 and _kind(kind.field(index).type) == "bytes" else None
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    return "path" if types.is_string(kind) or types.is_large_string(kind) else None


def _cells(table: _Table, row: int) -> Iterator[Any]:
    """Read the column from the row group that begins with `row` to the end.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    first = bisect_right(table.group_starts, row) - 1
    with _open(table.name) as file:
        if file.metadata.num_rows != table.rows or file.metadata.num_row_groups != len(table.group_starts):
            raise OSError("the table was replaced")
        for group in range(first, len(table.group_starts)):  # one call per group, as batches would span them
            batches = file.iter_batches(table.batch_rows, [group], [table.column], use_threads=False)
            for batch in batches:
                for cell in batch.column(0):
                    yield _value(cell)


class _Unreadable:
    """Takes the place of a cell that cannot be converted, such as text that is not UTF-8."""


def _value(cell: pyarrow.Scalar[Any]) -> Any:
    try:
        return cell.as_py()
    except (ValueError, TypeError, OverflowError):
        return _bytes_alone(cell)


def _bytes_alone(cell: Any) -> Any:
    """Return the picture of a `{bytes, path}` whose path is not UTF-8."""
    try:
        data = cell["bytes"].as_py()
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError):
        return _Unreadable()
    return _Unreadable() if data is None else {"bytes": data}


def _paths(table: _Table) -> Iterator[Any]:
    import pyarrow

    try:
        yield from _cells(table, 0)
    except (OSError, ValueError, pyarrow.ArrowException) as exc:
        raise DsvlError(f"{table.name}: damaged, or changed while being read") from exc


def _beginning(tables: Sequence[_Table], index: int) -> int:
    table = tables[bisect_right(tables, index, key=lambda table: table.first) - 1]
    return table.first + table.group_starts[bisect_right(table.group_starts, index - table.first) - 1]


def _stream(tables: Sequence[_Table], index: int) -> Stream[Any]:
    """Read all cells from an index that begins a row group to the end."""
    import pyarrow

    place = bisect_right(tables, index, key=lambda table: table.first) - 1
    while place < len(tables):  # tables may have been added meanwhile
        table = tables[place]
        try:
            yield from _cells(table, max(index - table.first, 0))
        except (OSError, ValueError, pyarrow.ArrowException) as exc:
            raise ImageError(f"{table.name}: damaged, or changed during the run") from exc
        place += 1


def _size(cell: Any) -> int:
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    if isinstance(cell, list):
        return 256 + sum(map(_size, cell))
    return 256 + (len(cell) if isinstance(cell, (bytes, str)) else 0)


def _read(reader: SequentialReader[Any], index: int, folder: str, name: str, access: Access) -> Sequence[bytes]:
    return _pictures(reader.read(index), folder, name, access)


def _pictures(cell: Any, folder: str, name: str, access: Access) -> Sequence[bytes]:
    if isinstance(cell, _Unreadable):
        raise ImageError(f"{name}: not readable as pictures or paths: it is damaged, or not UTF-8")
    if isinstance(cell, list):
        return tuple(picture for part in cell for picture in _pictures(part, folder, name, access))
    if isinstance(cell, dict):
        cell = cell["bytes"] if cell["bytes"] is not None else cell.get("path")
    if not cell:
        raise ImageError(f"{name}: no picture in this row")
    if isinstance(cell, str):
        path = os.path.join(folder, shown_address(cell))
        check_inside(path, folder, access)
        return (read_file(Path(path), path),)
    if len(cell) > MAX_BYTES:
        raise ImageError(f"{name}: larger than the limit of {MAX_BYTES // 2**20} MiB", "make it smaller first")
    return (cell,)

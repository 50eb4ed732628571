"""Writes rows to one file atomically: CSV, Parquet, or the output format of OpenAI's Batch API."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dsvl_cli.batch.output.responses import to_response_line
from dsvl_cli.batch.row import FIELDS, ONLY, Row
from dsvl_cli.engine.storage.files import new_file
from dsvl_cli.errors import DsvlError

_ROWS_AT_ONCE = 5_000
# What makes spreadsheets read a text as a formula; East Asian versions accept full-width characters too. Where cells
# are separated by semicolons or tabs, quotes within the line have no effect, and a cell begins in the middle of a text.
# There, a line that begins with a dash is left alone if it cannot call anything: answers contain lists.
_FORMULA = re.compile(
    r"""\A(?=[\t\r]) | \A[\s"'\0\ufeff]*(?=[=+\-@＝＋－＠])
    | [;\t\r\n][\s"'\0\ufeff]*(?=[=@＝＠] | [+\-＋－][^;\t\r\n]*[(|!（｜！])""",
    re.VERBOSE,
)
_FORMULA_START = re.compile(r"""[\s"'\0\ufeff]*[=+\-@＝＋－＠]""")
_NUMBERS = {"prompt_tokens": int, "tokens": int, "width": int, "height": int, "seconds": float}


def write_csv(path: Path, rows: Iterable[Row], questions: Sequence[str], *, mark: bool = False) -> None:
    """Write a UTF-8 CSV file with a header line.

    Texts that look like formulas get an apostrophe, in all columns but the first: ids are for joining tables. Those are
    in quotes, so that spreadsheets that separate cells by semicolons do not look for any in them.

    Args:
        path: the file.
        rows: in their order.
        questions: the names of the questions.
        mark: begin with a byte order mark, without which Excel does not take a file for UTF-8.
    """
    columns = table_columns(questions)
    with new_file(path) as file:
        file.write(codecs.BOM_UTF8 * mark + b"id," + _csv_lines([columns[1:]]))
        for some in _chunks(rows):
            cells = [_cells(row, columns) for row in some]
            file.write(b"".join(_quoted(id_) + b"," + _csv_lines([others]) for id_, *others in cells))


def write_parquet(path: Path, rows: Iterable[Row], questions: Sequence[str]) -> None:
    """Write a Parquet file; its `path` column can be joined with other tables.

    Raises:
        DsvlError: pyarrow is not installed.
    """
    check_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = table_columns(questions)
    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    schema = pa.schema([(name, kinds[_NUMBERS.get(name, str)]) for name in columns])
    with new_file(path) as file, pq.ParquetWriter(pa.PythonFile(file, "w"), schema) as writer:
        for some in _chunks(rows):
            cells = [[_encodable(cell) for cell in _cells(row, columns)] for row in some]
            writer.write_table(pa.table(list(map(list, zip(*cells, strict=True))), schema=schema))


def write_openai(path: Path, rows: Iterable[Row], _: Sequence[str]) -> None:
    """Write the output format of OpenAI's Batch API: one line of JSON per request."""
    with new_file(path) as file:
        for some in _chunks(rows):
            file.write(b"".join(map(to_response_line, some)))


def looks_like_formula(id_: str) -> bool:
    """Whether a spreadsheet would take an id for a formula."""
    return _FORMULA_START.match(id_) is not None


def check_parquet() -> None:
    """Raise DsvlError if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as exc:
        raise DsvlError("Parquet support is not installed", "pip install 'dsvl[parquet]'") from exc


def table_columns(questions: Sequence[str]) -> list[str]:
    """Return the column names: the fields of a row, with one column per question if there are several."""
    if tuple(questions) == (ONLY,):
        return list(FIELDS)
    totals = [name for name in FIELDS if name not in ("id", "path", "status", "prompt", "text", "finish_reason")]
    return ["id", "path", "status", *questions, *totals]


def _cells(row: Row, columns: Sequence[str]) -> list[Any]:
    fields = row.to_fields()
    if not row.is_flat:
        answers = row.answers.values()
        fields["suspicion"] = row.suspicion
        for name in ("prompt_tokens", "tokens", "seconds"):
            known = [value for answer in answers if (value := getattr(answer, name)) is not None]
            fields[name] = sum(known) if known else None
    return [fields.get(name) for name in columns]


def _csv_lines(lines: Iterable[Sequence[Any]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([[_harmless(_encodable(cell)) for cell in line] for line in lines])
    return buffer.getvalue().encode()


def _quoted(id_: str) -> bytes:
    return b'"%b"' % _encodable(id_).replace('"', '""').encode()


def _harmless(cell: Any) -> Any:
    """Put an apostrophe before what a spreadsheet would take for a formula."""
    return _FORMULA.sub(lambda match: f"{match.group()}'", cell) if isinstance(cell, str) else cell


def _encodable(cell: Any) -> Any:
    r"""Replace bytes of a path that are not UTF-8 by `\xNN`."""
    if not isinstance(cell, str):
        return cell
    try:
        cell.encode()
        return cell
    except UnicodeEncodeError:
        pass
    try:
        return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other surrogates, which Windows allows
        return cell.encode("utf-8", "backslashreplace").decode()


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    waiting = iter(rows)
    while some := list(islice(waiting, _ROWS_AT_ONCE)):
        yield some

"""Writes rows to one file atomically: CSV, Parquet, or the output format of OpenAI's Batch API."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from dsvl_cli.batch.output.responses import to_response_line
from dsvl_cli.batch.row import FIELDS, ONLY, Row, probability_column, sample_columns
from dsvl_cli.engine.constraints import Constraint, JsonSchema, OneOf
from dsvl_cli.engine.storage.files import new_file
from dsvl_cli.errors import DsvlError

Constraints = Mapping[str, Constraint]

_INT64 = range(-(2**63), 2**63)
_KINDS = {"integer": int, "number": float, "boolean": bool}
_LISTS: Mapping[type, type] = {str: list[str], int: list[int], float: list[float], bool: list[bool]}
_FORMS = ("value", "probability", "logprobs", "samples", "disagreement")  # columns that an answer of a given form has
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
_NUMBERS: dict[str, type] = {"prompt_tokens": int, "tokens": int, "width": int, "height": int, "seconds": float}


def write_csv(
    path: Path,
    rows: Iterable[Row],
    questions: Sequence[str],
    *,
    mark: bool = False,
    constraints: Constraints = MappingProxyType({}),
    has_samples: bool = False,
) -> None:
    """Write a UTF-8 CSV file with a header line.

    Texts that look like formulas get an apostrophe, in all columns but the first: ids are for joining tables. Those are
    in quotes, so that spreadsheets that separate cells by semicolons do not look for any in them.

    Args:
        path: the file.
        rows: in their order.
        questions: the names of the questions.
        mark: begin with a byte order mark, without which Excel does not take a file for UTF-8.
        constraints: what form the answers must have, by question.
        has_samples: whether each question was answered several times.
    """
    columns = list(table_columns(questions, constraints, has_samples=has_samples))
    with new_file(path) as file:
        file.write(codecs.BOM_UTF8 * mark + b"id," + _csv_lines([columns[1:]]))
        for some in _chunks(rows):
            cells = [_cells(row, columns) for row in some]
            file.write(b"".join(_quoted(id_) + b"," + _csv_lines([others]) for id_, *others in cells))


def write_parquet(
    path: Path,
    rows: Iterable[Row],
    questions: Sequence[str],
    *,
    constraints: Constraints = MappingProxyType({}),
    has_samples: bool = False,
) -> None:
    """Write a Parquet file; its `path` column can be joined with other tables.

    Raises:
        DsvlError: pyarrow is not installed.
    """
    check_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = table_columns(questions, constraints, has_samples=has_samples)
    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    kinds |= {_LISTS[kind]: pa.list_(found) for kind, found in kinds.items()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with new_file(path) as file, pq.ParquetWriter(pa.PythonFile(file, "w"), schema) as writer:
        for some in _chunks(rows):
            cells = [
                [_as(kind, cell) for kind, cell in zip(columns.values(), _cells(row, columns), strict=True)]
                for row in some
            ]
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


def table_columns(
    questions: Sequence[str], constraints: Constraints = MappingProxyType({}), *, has_samples: bool = False
) -> dict[str, type]:
    """Return the columns with their types: the fields of a row, with one column per question if there are several.

    The properties of a schema are columns if there is one question; a name that a row has already gets `value.`.
    """
    kinds = {name: _NUMBERS.get(name, str) for name in FIELDS}
    if tuple(questions) == (ONLY,):
        columns: dict[str, type] = {}
        for name in FIELDS:
            columns[name] = kinds[name]
            if name == "text" and ONLY in constraints:
                columns.update(_columns_of(constraints[ONLY]))
            if name == "text" and has_samples:
                columns.update(disagreement=float, samples=_LISTS[_kind_of_answer(constraints.get(ONLY))])
        return columns
    columns = dict.fromkeys(("id", "path", "status"), str)
    for name in questions:
        constraint = constraints.get(name)
        kind = columns[name] = _kind_of_answer(constraint)
        if isinstance(constraint, OneOf):
            columns[probability_column(name)] = float
        if has_samples:
            columns |= dict(zip(sample_columns(name), (float, _LISTS[kind]), strict=True))
    hidden = ("id", "path", "status", "prompt", "text", "finish_reason")
    return columns | {name: kind for name, kind in kinds.items() if name not in hidden}


def _columns_of(constraint: Constraint) -> dict[str, type]:
    """Return the columns of the answer to the only question."""
    if isinstance(constraint, OneOf):
        return {"probability": float}
    properties = _properties(constraint.value)
    return {_column(name): _kind_of(part) for name, part in properties.items()} or {"value": _kind_of(constraint.value)}


def _properties(schema: Any) -> dict[str, Any]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties if isinstance(properties, dict) else {}


def _column(name: str) -> str:
    return f"value.{name}" if name in FIELDS or name in _FORMS else name


def _kind_of_answer(constraint: Constraint | None) -> type:
    return _kind_of(constraint.value) if isinstance(constraint, JsonSchema) else str


def _kind_of(schema: Any) -> type:
    """Return the type of a column: of numbers and booleans if the schema allows nothing else, else of texts."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    return _KINDS.get(kind, str) if isinstance(kind, str) else str


def _as(kind: type, cell: Any) -> Any:
    """Return a value for a column of a type; JSON stands for what is no text, None for a number out of range."""
    if cell is None:
        return None
    if kind in _LISTS.values():
        (inner,) = get_args(kind)
        return [_as(inner, each) for each in cell]
    if kind is str:
        return _encodable(cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False))
    try:
        value = kind(cell) if isinstance(cell, (int, float)) else None
    except OverflowError:  # JSON's numbers may have any number of digits
        return None
    return None if kind is int and value not in _INT64 else value


def _cells(row: Row, columns: Iterable[str]) -> list[Any]:
    fields = row.to_fields()
    value = fields.get("value")
    if row.is_flat and isinstance(value, dict):
        fields = {_column(name): part for name, part in value.items()} | fields
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
    writer.writerows([[_harmless(_encodable(_plain(cell))) for cell in line] for line in lines])
    return buffer.getvalue().encode()


def _plain(cell: Any) -> Any:
    """Return JSON for what a cell cannot hold: lists, objects and booleans."""
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, (list, dict, bool)) else cell


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

"""A journal loses no rows: what a kill leaves is mended, and whatever else is no row is named and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.errors import DsvlError
from tests.batch.output.test_output import error_of, row_of

ROWS = (row_of("a"), error_of("b"), row_of("c", suspicion="empty"))
WHOLE = b"".join(row.to_line() for row in ROWS)
LAST = ROWS[-1].to_line()


def load(path: Path) -> list[str]:
    with Journal(path) as journal:
        return [row.id for row in journal.rows()]


def without_columns(*names: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        lines = [json.loads(line) for line in data.splitlines()]
        kept = [{name: value for name, value in line.items() if name not in names} for line in lines]
        return b"".join(json.dumps(line).encode() + b"\n" for line in kept)

    return change


def pretty(data: bytes) -> bytes:
    return b"\n".join(json.dumps(json.loads(line), indent=2).encode() for line in data.splitlines()) + b"\n"


CHANGES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "pretty": (pretty, 1),
    "pretty without the last line feed": (lambda data: pretty(data)[:-1], 1),
    "one array": (lambda data: json.dumps([json.loads(line) for line in data.splitlines()]).encode(), 1),
    "no ids": (without_columns("id"), 1),
    "no status": (without_columns("status"), 1),
    "no text": (without_columns("text"), 1),
    "only id and text": (without_columns(*(set(json.loads(LAST)) - {"id", "text"})), 1),
    "only id and text, last line without its line feed": (
        lambda data: b'{"id": "a", "text": "A cat."}', 1,
    ),
    "another status": (lambda data: data.replace(b'"answered"', b'"fine"', 1), 1),
    "a number for a text": (lambda data: data.replace(b'"A cat."', b"7", 1), 1),
    "a header": (lambda data: b"id,path,status\n" + data, 1),
    "an empty line": (lambda data: data.replace(b"\n", b"\n\n", 1), 2),
    "a conflict of merging": (lambda data: data + b"<<<<<<< HEAD\n", 4),
    "a broken line in the middle": (lambda data: data.replace(b'{"id": "b"', b'{"id": b"'), 2),
    "a torn line in the middle": (lambda data: data[:50] + b"\n" + data[50:], 1),
    "a torn line with its line feed at the end": (lambda data: data[:-60] + b"\n", 3),
    "rubbish at the end": (lambda data: data + b"rubbish", 4),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), 1),
    "nested a million deep": (lambda data: data + b"[" * 1_000_000 + b"\n", 4),
    "not UTF-8": (lambda data: data.replace(b"A cat.", b"A \xff cat."), 1),
}  # fmt: skip


@pytest.mark.fault("journals that something else changed")
@pytest.mark.parametrize("name", CHANGES)
def test_a_journal_that_something_changed_is_an_error_and_is_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / "j.jsonl"
    change, number = CHANGES[name]
    changed = change(WHOLE)
    path.write_bytes(changed)
    for use in (load, lambda path: Journal(path).peek()):
        with pytest.raises(DsvlError, match=f"line {number} is not a row"):
            use(path)
    assert path.read_bytes() == changed


@pytest.mark.fault("torn journals", cases=len(LAST) - 1)
def test_a_torn_last_line_is_cut_off_wherever_it_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    before = WHOLE[: -len(LAST)]
    for length in range(len(LAST) - 1):
        path.write_bytes(before + LAST[:length])
        assert load(path) == ["a", "b"]
        assert path.read_bytes() == before


@pytest.mark.fault("planted links and files")
def test_a_link_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(WHOLE)
    (tmp_path / "j.jsonl").symlink_to("victim")
    with pytest.raises(OSError, match=r".*"):
        Journal(tmp_path / "j.jsonl")._open_file()
    with pytest.raises(DsvlError, match="it is a link"):
        load(tmp_path / "j.jsonl")
    assert (tmp_path / "victim").read_bytes() == WHOLE


@pytest.mark.fault("torn journals")
def test_zeros_that_a_power_failure_leaves_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(WHOLE + LAST[:20] + bytes(5000))
    assert load(path) == ["a", "b", "c"]
    assert path.read_bytes() == WHOLE


@pytest.mark.fault("journals that something else changed")
def test_the_last_row_is_kept_when_an_editor_took_its_line_feed(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(WHOLE[:-1])
    with Journal(path) as journal:
        journal.append(row_of("d"))
    assert path.read_bytes() == WHOLE + row_of("d").to_line()


def test_more_columns_and_another_order_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    lines = [json.loads(line) for line in WHOLE.splitlines()]
    mine = "".join(json.dumps({"mine": 1, **dict(reversed(line.items()))}) + "\n" for line in lines)
    path.write_text(mine)
    assert load(path) == ["a", "b", "c"]
    assert path.read_text() == mine

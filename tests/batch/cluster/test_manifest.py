"""A manifest names each picture once, for good, in a way that every machine understands."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsvl_cli.batch.cluster.manifest import Addresses, Entry, Manifest
from dsvl_cli.batch.cluster.place import Place
from dsvl_cli.batch.cluster.reading import Reading, read_pictures, to_item
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources.scan import scan
from dsvl_cli.engine.pictures.access import Access
from dsvl_cli.errors import DsvlError, UsageError
from tests.batch.fakes import png
from tests.batch.sources.test_webdataset import write as write_tar


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "ü b.png", "sub/a.png")):
        (tmp_path / "photos" / name).write_bytes(png(number))
    return tmp_path


def entries(*sources: str, base: Path) -> Iterator[Entry]:
    addresses = Addresses(sources, os.path.realpath(base))
    return (addresses.entry(item) for item in scan(sources))


def test_new_pictures_are_appended_and_the_numbers_of_others_stay(here: Path) -> None:
    place = Place.open("state/manifest")
    first = Manifest(place)
    assert first.extend(entries("photos", base=here)) == 2
    (here / "photos/0.png").write_bytes(png(9))
    again = Manifest(place)
    again.load()
    assert again.count == 2
    assert again.extend(entries("photos", base=here)) == 3
    found = [(entry.number, entry.id) for entry in again.entries()]
    assert found == [(0, "photos/a.png"), (1, "photos/ü b.png"), (2, "photos/0.png")]


def test_only_its_owner_can_read_it(here: Path) -> None:
    manifest = Manifest(Place.open("m"))
    address = "https://me:secret@example.com/a.png?token=1"
    manifest.extend(entries(address, base=here))
    (entry,) = manifest.entries()
    assert entry.address == address
    assert "secret" not in entry.id + entry.path
    assert [path.stat().st_mode & 0o777 for path in (here / "m").iterdir()] == [0o600]


def test_a_picture_is_the_same_however_it_is_spelled(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "linked").symlink_to("photos")
    manifest = Manifest(Place.open("m"))
    manifest.extend(entries("photos/a.png", base=here))
    manifest.extend(entries("./photos/../photos/a.png", str(here / "photos/a.png"), "linked/a.png", base=here))
    assert manifest.count == 1
    monkeypatch.chdir(here / "photos")
    manifest.extend(entries("a.png", "sub/a.png", base=here))
    # An id stays relative to the folder of the first run: there are no two of the same.
    assert [entry.id for entry in manifest.entries()] == ["photos/a.png", "photos/sub/a.png"]


def test_a_name_that_is_not_utf8_is_kept(here: Path) -> None:
    name = os.fsdecode(b"photos/\xff.png")
    try:
        Path(name).write_bytes(png(5))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    manifest = Manifest(Place.open("m"))
    manifest.extend(entries("photos", base=here))
    assert name in [entry.id for entry in manifest.entries()]


def test_requests_are_refused(here: Path) -> None:
    item = Item("r1", "in.jsonl", tuple, parts=("What?", None), own_id=True)
    with pytest.raises(UsageError, match="no requests"):
        Addresses((), str(here)).entry(item)


def make_sources(here: Path) -> list[str]:
    """One of each kind of source that needs no network, each with something that cannot be read."""
    (here / "photos/gone.png").symlink_to("nowhere")
    write_tar(here / "s.tar", {"1.png": png(11), "2.png": png(12), "3.txt": b"no picture"})
    write_tar(here / "z.tar.gz", {"1.png": png(21), "2.png": png(22)}, "w:gz")
    pq.write_table(pa.table({"image": [png(31), None, png(33)]}), here / "t.parquet", row_group_size=1)
    pq.write_table(pa.table({"images": pa.array([[png(41), png(42)], []], pa.list_(pa.binary()))}), here / "l.parquet")
    pq.write_table(pa.table({"file_name": ["photos/a.png", "photos/none.png", "../out.png"]}), here / "p.parquet")
    data = "data:image/png;base64," + base64.b64encode(png(51)).decode()
    return ["photos", "photos/gone.png", "s.tar", "z.tar.gz", "t.parquet", "l.parquet", "p.parquet", data, "data:,"]


def read(item: Item) -> list[bytes] | tuple[str, str]:
    try:
        return list(item.read())
    except DsvlError as error:
        return type(error).__name__, error.message


def test_what_a_worker_reads_is_what_the_local_engine_reads(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = make_sources(here)
    there = {item.id: read(item) for item in scan(sources)}
    manifest = Manifest(Place.open("m"))
    manifest.extend(entries(*sources, base=here))
    assert manifest.count == len(there) > 12
    table = pq.read_table("m")
    monkeypatch.chdir("/")  # another machine, with the same disk
    reading = Reading(Access(), None, {"text": "What?"}, ".txt")
    rows = [row for part in read_pictures(table, reading) for row in part.to_pylist()]
    assert {row["id"].decode(): read(to_item(row)) for row in rows} == there
    assert [row["prompts"] for row in rows] == [None] * len(rows)


def test_prompts_are_filled_in_where_the_picture_is_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos/a.txt").write_text("a circle")
    manifest = Manifest(Place.open("m"))
    manifest.extend(entries("photos", base=here))
    table = pq.read_table("m")
    monkeypatch.chdir("/")
    reading = Reading(Access(), None, {"text": "{{{name}}} in {folder}: {caption}?"}, ".txt")
    (part,) = read_pictures(table, reading)
    first, second = part.to_pylist()
    assert to_item(first).prompts == {"text": "{a} in photos: a circle?"}
    assert to_item(second).prompts is None
    assert second["unfilled"].startswith("photos/ü b.png: has no {caption}")
    assert list(to_item(second).read()) == [png(1)]  # the row gets its hash


def test_large_pictures_leave_in_pieces(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsvl_cli.batch.cluster.reading._PIECE_BYTES", 1)
    for number in range(20):
        (here / f"photos/{number}.png").write_bytes(png(number))
    manifest = Manifest(Place.open("m"))
    manifest.extend(entries("photos", base=here))
    reading = Reading(Access(), None, {"text": "What?"}, ".txt")
    parts = list(read_pictures(pq.read_table("m"), reading))
    assert len(parts) == 3
    assert [number for part in parts for number in part.column("number").to_pylist()] == list(range(22))

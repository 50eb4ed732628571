from __future__ import annotations

import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsvl_cli.batch.sources import parquet
from dsvl_cli.batch.sources.parquet import scan_parquet
from dsvl_cli.engine.pictures.access import Access
from dsvl_cli.engine.pictures.images import picture_from_bytes
from dsvl_cli.errors import DsvlError, ImageError
from tests.pictures import draw_picture

PICTURES = [draw_picture(seed).data for seed in range(7)]
HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, row_group_size: int = 3, **columns: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return str(path)


def read_all(path: str, column: str | None = None) -> list[list[bytes]]:
    return [list(item.read()) for item in scan_parquet(path, column)]


def structs(pictures: list[bytes]) -> pa.Array:
    return pa.array([{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(pictures)], HUGGING_FACE)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), HUGGING_FACE])
def test_each_row_is_an_item_with_its_own_picture(kind: pa.DataType, tmp_path: Path) -> None:
    column = structs(PICTURES) if kind == HUGGING_FACE else pa.array(PICTURES, kind)
    path = write(tmp_path / "t.parquet", image=column, label=list(range(7)))
    items = list(scan_parquet(path))
    assert [item.id for item in items] == [f"{path}::{row}" for row in range(7)]
    for order in (range(7), range(6, -1, -1)):
        for row in order:
            assert list(items[row].read()) == [PICTURES[row]]
    assert picture_from_bytes(items[0].read()[0], "x").width == 96


def test_paths_lead_from_the_folder_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for n, data in enumerate(PICTURES):
        (tmp_path / "pictures" / f"{n}.png").write_bytes(data)
    names = [f"pictures/{n}.png" for n in range(7)]
    path = write(tmp_path / "t.parquet", file_name=names, text=["x"] * 7)
    items = list(scan_parquet(path))
    assert [item.path for item in items] == [str(tmp_path / name) for name in names]
    assert [list(item.read()) for item in items] == [[data] for data in PICTURES]
    without_bytes = pa.array([{"bytes": None, "path": name} for name in names], HUGGING_FACE)
    assert read_all(write(tmp_path / "h.parquet", image=without_bytes)) == [[data] for data in PICTURES]


def test_a_row_of_several_pictures(tmp_path: Path) -> None:
    column = pa.array([[{"bytes": data, "path": None} for data in PICTURES[:2]], []], pa.list_(HUGGING_FACE))
    first, second = scan_parquet(write(tmp_path / "t.parquet", images=column))
    assert list(first.read()) == PICTURES[:2]
    assert list(second.read()) == []


def test_a_row_without_a_picture_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=pa.array([PICTURES[0], None, b"", PICTURES[1]]))
    items = list(scan_parquet(path))
    assert list(items[3].read()) == [PICTURES[1]]
    for row in (1, 2):
        with pytest.raises(ImageError, match=f"::{row}: no picture"):
            items[row].read()


def test_a_folder_of_tables_in_order_of_name(tmp_path: Path) -> None:
    for name, part in (("b/2.parquet", PICTURES[3:]), ("a/1.parquet", PICTURES[:3]), ("a/0.parquet", [])):
        write(tmp_path / name, row_group_size=2, image=pa.array(part, pa.binary()))
    (tmp_path / "a" / ".hidden.parquet").write_bytes(b"no table")
    (tmp_path / "a" / "_metadata.parquet").write_bytes(b"no table")
    items = list(scan_parquet(str(tmp_path)))
    assert [item.id for item in items] == [f"{tmp_path}/a/1.parquet::{row}" for row in range(3)] + [
        f"{tmp_path}/b/2.parquet::{row}" for row in range(4)
    ]
    assert [list(item.read()) for item in items] == [[data] for data in PICTURES]
    assert [list(item.read()) for item in reversed(items)] == [[data] for data in reversed(PICTURES)]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DsvlError, match="no Parquet table"):
        list(scan_parquet(str(empty)))


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"image": PICTURES, "thumbnail": PICTURES[::-1]}, "image"),
        ({"JPG": PICTURES, "json": ["{}"] * 7}, "JPG"),
        ({"content": PICTURES, "text": ["x"] * 7}, "content"),
        ({"image": PICTURES, "file_name": ["x"] * 7}, "image"),
    ],
)
def test_the_column_is_found_by_name_or_by_type(columns: dict[str, Any], chosen: str, tmp_path: Path) -> None:
    assert read_all(write(tmp_path / "t.parquet", **columns)) == [[data] for data in columns[chosen]]


def test_no_column_or_several_are_told_with_their_names(tmp_path: Path) -> None:
    several = write(tmp_path / "several.parquet", left=PICTURES, right=PICTURES[::-1])
    with pytest.raises(DsvlError, match="2 columns could hold the pictures: left, right"):
        list(scan_parquet(several))
    assert read_all(several, "right") == [[data] for data in reversed(PICTURES)]
    none = write(tmp_path / "none.parquet", number=list(range(7)), text=["x"] * 7)
    with pytest.raises(DsvlError, match="no column holds pictures") as caught:
        list(scan_parquet(none))
    assert caught.value.hint == "its columns: number (int64), text (string)"
    for column in ("number", "elsewhere"):
        with pytest.raises(DsvlError, match=column):
            list(scan_parquet(none, column))


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    large = [bytes([n]) * 1_000_000 for n in range(100)]  # 100 MB in one row group
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": large}), path, write_batch_size=4)  # in pages of 4 MB: less cannot be read
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    for row, item in enumerate(scan_parquet(str(path))):
        assert item.read()[0][:1] == bytes([row])
        assert pa.total_allocated_bytes() - before < 30 * 2**20
    assert tracemalloc.get_traced_memory()[1] < 80 * 2**20
    tracemalloc.stop()


def test_many_threads_read_each_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=[b"%d" % n for n in range(500)])
    items = list(scan_parquet(path))
    with ThreadPoolExecutor(8) as pool:
        assert [list(found) for found in pool.map(lambda item: item.read(), items)] == [[b"%d" % n] for n in range(500)]


@pytest.mark.fault("damaged tables")
def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "t.parquet", image=PICTURES))
    data = path.read_bytes()
    for part in (b"", b"PAR1", data[:-3], data[: len(data) // 2], b"\0" * 500):
        path.write_bytes(part)
        with pytest.raises(DsvlError, match="not a Parquet table"):
            list(scan_parquet(str(path)))
    with pytest.raises(DsvlError, match="no such file"):
        list(scan_parquet(str(tmp_path / "missing.parquet")))


@pytest.mark.fault("damaged tables")
def test_damage_in_one_row_group_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": PICTURES}), path, row_group_size=3, compression="zstd")
    with pq.ParquetFile(path) as file:
        chunk = file.metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    items = list(scan_parquet(str(path)))
    for row in range(3, 6):
        with pytest.raises(ImageError, match="damaged"):
            items[row].read()
    for row in (0, 1, 2, 6):
        assert list(items[row].read()) == [PICTURES[row]]


@pytest.mark.fault("damaged tables")
def test_a_table_that_changed_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=PICTURES)
    items = list(scan_parquet(path))
    write(tmp_path / "t.parquet", image=PICTURES[:2])
    with pytest.raises(ImageError, match="changed"):
        items[0].read()


def test_a_picture_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_BYTES", 10)
    small, large = scan_parquet(write(tmp_path / "t.parquet", image=[b"x" * 10, b"x" * 11]))
    assert list(small.read()) == [b"x" * 10]
    with pytest.raises(ImageError, match="larger than the limit"):
        large.read()


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", image=PICTURES)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DsvlError, match="support is not installed") as caught:
        list(scan_parquet(path))
    assert caught.value.hint == "pip install 'dsvl[parquet]'"


@pytest.mark.fault("a path out of its folder")
def test_a_table_names_no_files_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.parquet"
    pq.write_table(pa.table({"image_path": ["../secret.png", str(tmp_path / "secret.png")]}), table)
    for item in scan_parquet(str(table)):
        with pytest.raises(ImageError, match="outside the folder"):
            item.read()
    assert [item.read() for item in scan_parquet(str(table), access=Access(outside=True))] == [(b"secret",)] * 2


@pytest.mark.fault("damaged tables")
@pytest.mark.parametrize("nested", [False, True])
def test_a_path_that_is_not_utf8_is_an_error_of_its_own(tmp_path: Path, nested: bool) -> None:
    (tmp_path / "a.png").write_bytes(PICTURES[0])
    cells = pa.array([b"a.png", b"\xff\xfe.png", b"a.png"], pa.binary()).view(pa.string())
    if nested:
        cells = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), cells)
    pq.write_table(pa.table({"image": cells}), tmp_path / "t.parquet")
    first, bad, last = scan_parquet(str(tmp_path / "t.parquet"))
    assert first.read() == last.read() == (PICTURES[0],)
    with pytest.raises(ImageError, match="not UTF-8"):
        bad.read()


@pytest.mark.fault("damaged tables")
def test_a_picture_is_read_though_its_path_is_not_utf8(tmp_path: Path) -> None:
    names = pa.array([b"a.png", b"\xff.png", b"\xff.png"], pa.binary()).view(pa.string())
    data = pa.array([PICTURES[0], PICTURES[1], None], pa.binary())
    pq.write_table(
        pa.table({"image": pa.StructArray.from_arrays([data, names], ["bytes", "path"])}), tmp_path / "t.parquet"
    )
    first, second, third = scan_parquet(str(tmp_path / "t.parquet"))
    assert (first.read(), second.read()) == ((PICTURES[0],), (PICTURES[1],))
    with pytest.raises(ImageError, match="not UTF-8"):
        third.read()


@pytest.mark.fault("damaged tables")
def test_a_column_whose_name_is_not_utf8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": PICTURES, "cafe": ["x"] * len(PICTURES)}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"cafe", b"caf\xe9"))
    with pytest.raises(DsvlError, match="name of a column is not UTF-8"):
        list(scan_parquet(str(path)))

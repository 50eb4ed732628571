"""What is found, in which order, and what is not."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources.scan import ScanOptions, name_key, scan
from dsvl_cli.errors import DsvlError, ImageError, UsageError
from tests.batch.fakes import png

DEEP = ScanOptions(recursive=True)


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def found(*sources: str, names: bytes | None = None, options: ScanOptions | None = None) -> list[str]:
    return [item.path for item in scan(sources, None if names is None else io.BytesIO(names), options)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_its_pictures_in_order_of_name(folder: Path) -> None:
    make(folder, "a/b10.png", "a/b2.JPG", "a/notes.txt", "a/.hidden.png", "a/sub/c.webp", "a/.git/d.png", "a/b1/z.gif")
    assert found("a") == ["a/b2.JPG", "a/b10.png"]
    assert found("a/", options=DEEP) == ["a/b1/z.gif", "a/b2.JPG", "a/b10.png", "a/sub/c.webp"]
    assert found(".", options=DEEP) == found("a", options=DEEP)
    assert found("a", options=ScanOptions(extensions=frozenset({".txt"}))) == ["a/notes.txt"]


def test_an_item_reads_its_own_file_and_knows_its_root(folder: Path) -> None:
    make(folder, "a/x/1.png", "a/2.png")
    first, second = scan(["a"], options=DEEP)
    assert (first.read(), second.read()) == ((b"a/2.png",), (b"a/x/1.png",))
    assert (first.id, first.root, second.root) == ("a/2.png", "a", "a")
    (folder / "a/2.png").unlink()
    with pytest.raises(ImageError, match="no such file"):
        first.read()


def test_each_is_found_once_however_often_it_is_named(folder: Path) -> None:
    make(folder, "a/1.png", "a/2.png")
    assert found("./a//2.png", "a", "a/*.png", names=b"a/1.png\n./a/./1.png\n") == ["a/2.png", "a/1.png"]


def test_links_are_followed_only_when_asked_and_loops_end(folder: Path) -> None:
    make(folder, "a/1.png", "b/2.png")
    (folder / "a/loop").symlink_to("..")
    (folder / "a/other").symlink_to("../b")
    (folder / "a/link.png").symlink_to("1.png")
    assert found("a", options=DEEP) == ["a/1.png"]
    follow = ScanOptions(recursive=True, follow_links=True)
    assert found("a", options=follow) == ["a/1.png", "a/link.png", "a/loop/b/2.png"]
    assert found("a/link.png") == ["a/link.png"]
    assert found("a/**/1.png") == ["a/1.png"]


def test_a_thousand_nested_folders_are_no_problem(folder: Path) -> None:
    for _ in range(1100):
        os.mkdir("n")
        os.chdir("n")
    Path("x.png").write_bytes(b"x")
    os.chdir(folder)
    assert [path.count("/") for path in found("n", options=DEEP)] == [1100]
    here = os.getcwd()
    for _ in range(1100):  # pytest cannot take away what is so deep
        os.chdir("n")
    Path("x.png").unlink()
    for _ in range(1100):
        os.chdir("..")
        os.rmdir("n")
    assert os.getcwd() == here


def test_patterns_leave_out_what_is_no_picture_unless_they_name_it(folder: Path) -> None:
    make(folder, "a/1.png", "a/2.raw", "a/sub/3.png", "a/[x].png")
    assert found("a/*") == ["a/1.png", "a/[x].png"]
    assert found("a/*.raw") == ["a/2.raw"]
    assert found("a/**") == ["a/1.png", "a/[x].png", "a/sub/3.png"]
    assert found("a/[x].png") == ["a/[x].png"]
    with pytest.raises(DsvlError, match="no file matches"):
        found("a/*.gif")


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_names_of_any_bytes_are_found_and_come_back_from_lists(folder: Path) -> None:
    names = [b"a/\xff\xfe.png", b"a/line\nfeed.png", b"a/\x1b[31m.png", b"a/" + b"n" * 251 + b".png"]
    (folder / "a").mkdir()
    for name in names:
        Path(os.fsdecode(name)).write_bytes(b"x")
    assert sorted(map(os.fsencode, found("a"))) == sorted(names)
    assert sorted(map(os.fsencode, found(names=b"\0".join(names)))) == sorted(names)
    assert [item.read() for item in scan([], io.BytesIO(b"\0".join([*names, b""])))] == [(b"x",)] * 4


def test_lists_may_come_from_windows_and_have_no_end(folder: Path) -> None:
    make(folder, "1.png", "2.png")
    assert found(names=b"1.png\r\n\n2.png") == ["1.png", "2.png"]
    assert found(names=b"\xef\xbb\xbf1.png\r\n\xef\xbb\xbf2.png\r\n") == ["1.png", "2.png"]  # two lists, joined


def test_a_list_is_taken_as_it_comes() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as names, open(write_end, "wb", buffering=0) as writer:
        items = scan([], names)
        writer.write(b"1.png\n2.")
        got: list[Item] = []
        thread = threading.Thread(target=lambda: got.append(next(items)))
        thread.start()
        thread.join(30)
        assert [item.path for item in got] == ["1.png"]
        writer.write(b"png\n")
        assert next(items).path == "2.png"


def test_what_is_not_there_is_told_at_once(folder: Path) -> None:
    make(folder, "a/1.png")
    with pytest.raises(DsvlError, match="nowhere: no such file or folder"):
        scan(["a", "nowhere"])
    with pytest.raises(UsageError, match="not a valid source"):
        scan(["-"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_told(folder: Path) -> None:
    make(folder, "a/1.png", "a/secret/2.png")
    (folder / "a/secret").chmod(0)
    told: list[str] = []
    assert found("a", options=ScanOptions(recursive=True, tell=told.append)) == ["a/1.png"]
    assert told == ["a/secret: cannot be read: Permission denied"]
    (folder / "a/secret").chmod(0o700)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz"])
def test_folders_of_shards_are_opened(folder: Path, ending: str) -> None:
    import tarfile

    (folder / "shards").mkdir()
    for number in (10, 2):
        with tarfile.open(f"shards/{number}{ending}", "w" if ending == ".tar" else "w:gz") as tar:
            info = tarfile.TarInfo("a.png")
            info.size = len(png(number))
            tar.addfile(info, io.BytesIO(png(number)))
    items = list(scan(["shards"]))
    assert [item.id for item in items] == [f"shards/2{ending}::a.png", f"shards/10{ending}::a.png"]
    assert [bytes(item.read()[0]) for item in items] == [png(2), png(10)]


def test_the_order_goes_folder_by_folder_and_by_number() -> None:
    paths = ["a/2.png", "a/10.png", "a/10/1.png", "a b.png", "a.png", "b/007.png", "b/7.png", "b/8.png"]
    ordered = ["a/2.png", "a/10/1.png", "a/10.png", "a b.png", "a.png", "b/007.png", "b/7.png", "b/8.png"]
    assert sorted(paths, key=name_key) == ordered
    assert len(set(map(name_key, paths))) == len(paths)


def test_addresses_of_files_and_data_are_sources(folder: Path) -> None:
    make(folder, "a b.png", "pics/1.png")
    data = "data:image/png;base64,aGVsbG8="
    file, held, inside = scan([f"file://{folder}/a%20b.png", data, f"file://{folder}/pics"])
    assert (file.path, file.read()) == (f"{folder}/a b.png", (b"a b.png",))
    assert inside.path == f"{folder}/pics/1.png"
    assert held.read() == (b"hello",)
    assert held.id == held.path
    assert held.id.startswith("data:image/png#")
    listed = [*scan([], io.BytesIO(f"{data}\nfile://{folder}/a%20b.png\n{data}\n".encode()))]
    assert [item.id for item in listed] == [held.id, f"{folder}/a b.png"]
    (damaged,) = scan(["data:image/png;base64,a"])
    with pytest.raises(ImageError, match="not base64"):
        damaged.read()

"""Thumbnails and what else systems leave in folders of pictures is skipped and counted; so is what is excluded."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from dsvl_cli.batch.sources.leftovers import Exclusion, Skipped
from dsvl_cli.batch.sources.scan import ScanOptions, scan
from dsvl_cli.errors import DsvlError
from tests.batch.fakes import png

# Paths of thumbnails and the like, as their writers name them.
LEFTOVERS = (
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "2019/@eaDir/b.png/SYNOPHOTO_THUMB_XL.jpg", "#recycle/gone.png",
    "#snapshot/old/a.png", ".@__thumb/defaulta.png", "@Recycle/gone.png", "@Recently-Snapshot/x/a.png",
    ".thumbnails/normal/0a1b.png", ".xvpics/a.png", "2019/._b.png", "._a.png", "__MACOSX/a.png",
    ".Trash-1000/files/a.png", ".Trashes/501/a.png", "$RECYCLE.BIN/S-1-5/a.png", "System Volume Information/a.png",
    "lost+found/#123.png",
    ".picasaoriginals/a.png", "Previews.lrdata/0/a.jpg", ".stversions/a.png", ".dtrash/files/a.png",
)  # fmt: skip
PICTURES = ("a.png", "2019/b.png", "thumbs/c.png", "Originals/d.png", "recycle/e.png", "my @eaDir/f.png")
OTHERS = ("Thumbs.db", ".DS_Store", "2019/desktop.ini", ".git/x.png", ".hidden.png", "notes.txt")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (*LEFTOVERS, *PICTURES, *OTHERS):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "photos"


def found(*sources: str, **options: object) -> tuple[set[str], Skipped]:
    wanted = ScanOptions(recursive=True, **options)  # type: ignore[arg-type]
    return {item.path.removeprefix("photos/") for item in scan(sources, options=wanted)}, wanted.skipped


def entries(leftovers: tuple[str, ...] = LEFTOVERS) -> set[str]:
    """The files and folders that are skipped: a folder counts as one, however much is in it."""
    whole = {"a.png", "2019", "."}
    return {"/".join(parts[: 2 if parts[0] in whole else 1]) for parts in (name.split("/") for name in leftovers)}


def test_a_folder_gives_its_pictures_and_says_what_it_skipped(folder: Path) -> None:
    pictures, skipped = found("photos")
    assert pictures == set(PICTURES)
    (line,) = skipped.lines()
    assert line.startswith(f"{len(entries())} thumbnails and system files skipped (")
    assert line.endswith("; --all takes them")


def test_all_takes_everything_that_may_be_a_picture(folder: Path) -> None:
    pictures, skipped = found("photos", every=True)
    assert pictures == {*PICTURES, *LEFTOVERS, ".git/x.png", ".hidden.png"}
    assert skipped.lines() == []


def test_what_is_named_is_taken(folder: Path) -> None:
    listed = b"photos/._a.png\nphotos/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg"
    assert len(list(scan([], io.BytesIO(listed)))) == 2
    assert found("photos/._a.png")[0] == {"._a.png"}
    assert found("photos/#recycle")[0] == {"#recycle/gone.png"}
    assert found("photos/@eaDir/*/*")[0] == {"@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg"}
    with pytest.raises(DsvlError, match="only thumbnails and system files match"):  # a pattern names no file
        found("photos/._*.png")


def test_a_pattern_finds_no_thumbnails(folder: Path) -> None:
    pictures, skipped = found("photos/**/*.png")
    assert pictures == set(PICTURES)
    assert "thumbnails and system files skipped" in skipped.lines()[0]
    assert {*LEFTOVERS} & found("photos/**/*.png", every=True)[0]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_an_archive_has_none_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open(f"a{ending}", "w:gz" if ending.endswith("gz") else "w") as tar:
        for number, name in enumerate(
            ("__MACOSX/._a.png", "a.png", "__MACOSX/b.png", "@eaDir/c.png", "d/._e.png", "f.png")
        ):
            info = tarfile.TarInfo(name)
            info.size = len(png(number))
            tar.addfile(info, io.BytesIO(png(number)))
    options = ScanOptions()
    items = list(scan([f"a{ending}"], options=options))
    assert [(item.id, item.read()) for item in items] == [
        (f"a{ending}::a.png", (png(1),)),
        (f"a{ending}::f.png", (png(5),)),
    ]
    assert options.skipped.lines()[0].startswith("4 thumbnails")
    assert len(list(scan([f"a{ending}"], options=ScanOptions(every=True)))) == 6
    assert len(list(scan([f"a{ending}"], options=ScanOptions(exclusion=Exclusion(["f.*"]))))) == 1


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("b.png", {"a.png", "2019/sub/c.png", "thumb_d.png"}),
        ("2019", {"a.png", "thumb_d.png"}),
        ("2019/", {"a.png", "thumb_d.png"}),
        ("2019/*", {"a.png", "thumb_d.png"}),
        ("2019/*.png", {"a.png", "2019/sub/c.png", "thumb_d.png"}),
        ("2019/**/*.png", {"a.png", "thumb_d.png"}),
        ("**/sub", {"a.png", "2019/b.png", "thumb_d.png"}),
        ("./2019/sub", {"a.png", "2019/b.png", "thumb_d.png"}),
        ("thumb_*", {"a.png", "2019/b.png", "2019/sub/c.png"}),
        ("[ab].png", {"2019/sub/c.png", "thumb_d.png"}),
        ("*", set()),
        ("photos", {"a.png", "2019/b.png", "2019/sub/c.png", "thumb_d.png"}),  # the folder that is given itself
        ("", {"a.png", "2019/b.png", "2019/sub/c.png", "thumb_d.png"}),
    ],
)
def test_patterns_leave_out_names_and_paths_below_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, left: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("a.png", "2019/b.png", "2019/sub/c.png", "thumb_d.png")
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"x")
    pictures, skipped = found("photos", exclusion=Exclusion([pattern]))
    assert pictures == left
    assert bool(skipped.excluded) == (len(left) < len(names))
    monkeypatch.chdir("photos")
    assert {
        item.path for item in scan(["."], options=ScanOptions(recursive=True, exclusion=Exclusion([pattern])))
    } == left


def test_what_a_shell_or_a_list_names_can_be_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a_thumb.png"):
        (tmp_path / name).write_bytes(b"x")
    options = ScanOptions(exclusion=Exclusion(["*_thumb.*", "*.gif"]))
    assert [item.path for item in scan(["a.png", "a_thumb.png"], options=options)] == ["a.png"]
    assert [item.path for item in scan([], io.BytesIO(b"a.png\na_thumb.png"), options)] == ["a.png"]
    assert options.skipped.lines() == ["2 excluded by --exclude"]
    assert options.exclusion.unmatched() == ["*.gif"]


@pytest.mark.parametrize("shards", ["00000.tar 00001.tar", "00000/000000001.jpg 00001/000010001.jpg"])
def test_a_folder_of_img2dataset_is_read_without_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in shards.split():
        path = tmp_path / "laion" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tar":
            with tarfile.open(path, "w") as tar:
                for member, data in (
                    (f"{path.stem}0.jpg", png(1)),
                    (f"{path.stem}0.json", b"{}"),
                    (f"{path.stem}0.txt", b"A"),
                ):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        else:
            path.write_bytes(png(1))
    for number in range(2):
        (tmp_path / f"laion/0000{number}.parquet").write_bytes(b"url, caption, key, status: no pictures")
        (tmp_path / f"laion/0000{number}_stats.json").write_bytes(b"{}")
    items = list(scan(["laion"], options=ScanOptions(recursive=True)))
    assert len(items) == 2
    assert all(item.read() == (png(1),) for item in items)

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources import webdataset
from dsvl_cli.batch.sources.webdataset import scan_tar
from dsvl_cli.errors import DsvlError, ImageError
from tests.pictures import draw_picture

PICTURES = {f"shard/{n:03d}.png": draw_picture(n).data for n in range(6)}


def info(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def write(path: Path, members: dict[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> str:
    with tarfile.open(str(path), mode, format=form) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            archive.addfile(info(name, len(data)), io.BytesIO(data))
    return str(path)


def found_before_error(path: str) -> tuple[list[Item], DsvlError | None]:
    items: list[Item] = []
    try:
        items.extend(scan_tar(path))  # what came before an error stays
    except DsvlError as error:
        return items, error
    return items, None


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_picture_is_an_item(mode: str, form: int, tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for name, data in PICTURES.items():
        members |= {name: data, name.replace(".png", ".txt"): b"a caption", name.replace(".png", ".json"): b"{}"}
    path = write(tmp_path / "a.tar", members, mode, form)
    items = list(scan_tar(path))
    assert [item.id for item in items] == [item.path for item in items] == [f"{path}::{name}" for name in PICTURES]
    for order in (items, items[::-1]):
        assert [item.read() for item in order] == [(PICTURES[item.id.split("::")[1]],) for item in order]


def test_only_pictures_in_plain_sight_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a.PNG", "b.c.jpeg", ".hidden.png", "._a.png", "__d/.x/e.png", "notes.txt", "png", "./f.gif"):
            archive.addfile(info(name, 3), io.BytesIO(b"abc"))
        archive.addfile(info("soft.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
        archive.addfile(info("hard.png", type=tarfile.LNKTYPE, linkname="a.PNG"))
        archive.addfile(info("device.png", type=tarfile.CHRTYPE))
        archive.addfile(info("pipe.png", type=tarfile.FIFOTYPE))
        archive.addfile(info("folder.png", type=tarfile.DIRTYPE))
    assert [item.id.split("::")[1] for item in scan_tar(str(path))] == ["a.PNG", "b.c.jpeg", "./f.gif"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_odd_names_and_names_that_come_again(mode: str, tmp_path: Path) -> None:
    names = [
        "x.png",
        "x.png",
        "../../up.png",
        "/etc/abs.png",
        "two\nlines.png",
        "b\udcff.png",
        "n" * 300 + ".png",
        "x.png",
    ]
    path = str(tmp_path / "a.tar")
    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for n, name in enumerate(names):
            archive.addfile(info(name, 1), io.BytesIO(b"%d" % n))
    before = sorted(os.listdir(tmp_path))
    items = list(scan_tar(path))
    assert [item.id.split("::")[1] for item in items] == [names[0], "x.png#2", *names[2:7], "x.png#3"]
    assert [item.read() for item in items] == [(b"%d" % n,) for n in range(8)]
    assert sorted(os.listdir(tmp_path)) == before  # nothing was extracted


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.fault("damaged archives")
def test_every_cut_is_told_and_what_came_before_stays(mode: str, tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.tar", PICTURES, mode))
    whole = path.read_bytes()
    size = len(whole) if mode == "w:gz" else tarfile_end(path)
    seen = set()
    for length in sorted({0, 1, 511, 512, 513, *random.Random(0).sample(range(size), 60)}):
        path.write_bytes(whole[:length])
        items, error = found_before_error(str(path))
        # A compressed archive may be cut within the zeros behind its last member, and nothing is lost.
        assert error is not None or (mode == "w:gz" and len(items) == len(PICTURES))
        assert error is None or "damaged or cut off" in error.message
        seen.add(len(items))
        for item in items:
            try:
                data = item.read()
            except ImageError:
                assert item is items[-1] or mode == "w:gz"
            else:
                assert data == (PICTURES[item.id.split("::")[1]],)
    assert len(seen) >= 4


def tarfile_end(path: Path) -> int:
    """Where the members end; what follows is zeros."""
    with tarfile.open(path) as archive:
        archive.getmembers()
        return int(archive.offset)


@pytest.mark.fault("damaged archives")
def test_damage_ends_in_items_or_in_one_line(tmp_path: Path) -> None:
    chance = random.Random(1)
    for mode in ("w", "w:gz"):
        path = Path(write(tmp_path / "a.tar", dict(list(PICTURES.items())[:3]), mode))
        whole = path.read_bytes()
        heads = [n for n in range(len(whole)) if n % 512 < 345 and whole[n - n % 512 :][:5] == b"shard"]
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(chance.randint(1, 8)):
                damaged[chance.choice(heads or range(len(whole)))] = chance.randrange(256)
            path.write_bytes(damaged)
            for item in found_before_error(str(path))[0]:
                with contextlib.suppress(ImageError):
                    item.read()


@pytest.mark.fault("damaged archives")
def test_a_damaged_header_in_the_middle_is_no_end(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.tar", PICTURES))
    data = bytearray(path.read_bytes())
    data[data.index(b"shard/003.png") + 150] ^= 0x55  # its checksum
    path.write_bytes(data)
    items, error = found_before_error(str(path))
    assert (len(items), error is not None) == (3, True)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.fault("damaged archives")
def test_a_header_that_claims_to_be_huge_takes_no_memory(kind: bytes, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    header = info("x.png", 2**30, type=kind).tobuf(tarfile.GNU_FORMAT)
    with gzip.open(path, "wb", 1) if mode == "w:gz" else path.open("wb") as file:
        file.write(header)
        for _ in range(64):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(DsvlError, match="damaged"):
        list(scan_tar(str(path)))
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_a_chain_of_headers_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(info("x.png", type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) * 20_000)
    with pytest.raises(DsvlError, match="damaged"):
        list(scan_tar(str(path)))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_member_over_the_limit_is_an_error_of_its_own(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "MAX_BYTES", 10)
    small, large, last = scan_tar(
        write(tmp_path / "a.tar", {"a.png": b"x" * 10, "b.png": b"x" * 11, "c.png": b""}, mode)
    )
    assert (small.read(), last.read()) == ((b"x" * 10,), (b"",))
    with pytest.raises(ImageError, match=r"b\.png: larger than the limit"):
        large.read()


@pytest.mark.fault("damaged archives")
def test_a_member_that_claims_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(info("x.png", 200 * 2**20).tobuf() + bytes(5000))
    items, error = found_before_error(str(path))
    assert error is not None
    tracemalloc.start()
    with pytest.raises(ImageError, match="cut off"):
        items[0].read()
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


@pytest.mark.fault("damaged archives")
def test_what_is_no_archive(tmp_path: Path, chance: random.Random) -> None:
    path = tmp_path / "a.tar"
    for data in (b"", b"hello", b"\x1f\x8b", b"\x1f\x8bgarbage" * 9, chance.randbytes(5000), draw_picture().data):
        path.write_bytes(data)
        with pytest.raises(DsvlError, match="not a tar archive"):
            list(scan_tar(str(path)))
    with pytest.raises(DsvlError, match="cannot be read"):
        list(scan_tar(str(tmp_path / "missing.tar")))
    with pytest.raises(DsvlError, match="cannot be read"):
        list(scan_tar(str(tmp_path)))
    write(path, {})
    assert list(scan_tar(str(path))) == []


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_memory_stays_flat(mode: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {f"{n}.png": bytes([n]) * 1_000_000 for n in range(100)}, mode)
    tracemalloc.start()
    for n, item in enumerate(scan_tar(path)):
        assert item.read()[0][:1] == bytes([n])
    assert tracemalloc.get_traced_memory()[1] < 45 * 2**20
    tracemalloc.stop()

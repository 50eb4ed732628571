"""Files that appear whole or not at all, whatever goes wrong and whoever else may write to the folder."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsvl_cli.engine.storage import files
from dsvl_cli.engine.storage.files import (
    NewFile,
    find_leftovers,
    new_file,
    open_regular,
    remove_abandoned,
    remove_leftovers,
    sync_folder,
)

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"before")
    return path


def write(target: Path, data: bytes = b"after") -> None:
    with new_file(target) as file:
        file.write(data)


def leave(target: Path) -> Path:
    """What a killed process leaves."""
    file = NewFile(target)
    file.write(b"half")
    file.close()
    return file.path


def test_it_is_there_when_it_is_whole(target: Path) -> None:
    with new_file(target) as file:
        assert file.write(b"one ") == 4
        assert file.write(memoryview(b"two")) == 3
        assert file.tell() == 7
        assert target.read_bytes() == b"before"
    assert target.read_bytes() == b"one two"
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("call", ["write", "sync", "replace"])
def test_a_call_that_fails_changes_nothing(target: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.system, call, fail)
    with pytest.raises(OSError, match="space"):
        write(target)
    assert target.read_bytes() == b"before"
    assert os.listdir(target.parent) == [target.name]


def test_what_is_given_up_changes_nothing(target: Path) -> None:
    def give_up() -> None:
        with new_file(target) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert target.read_bytes() == b"before"
    assert os.listdir(target.parent) == [target.name]


def test_short_writes_are_gone_on_with(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: Callable[[int, memoryview], int] = files.system.write
    monkeypatch.setattr(files.system, "write", lambda handle, data: whole(handle, data[:3]))
    write(target, b"0123456789")
    assert target.read_bytes() == b"0123456789"


def test_file_and_folder_are_brought_to_the_disk(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(files.system, "sync", lambda handle: synced.append(stat.S_ISDIR(os.fstat(handle).st_mode)))
    write(target)
    assert synced == ([False, True] if hasattr(os, "O_DIRECTORY") else [False])


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders cannot be opened there")
@pytest.mark.parametrize(("code", "is_told"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_bring_a_folder_to_the_disk_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_told: bool
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.system, "sync", fail)
    if is_told:
        with pytest.raises(OSError, match="error"):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_it_has_the_permissions_that_are_asked_for(target: Path) -> None:
    write(target)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    with new_file(target, 0o600) as file:
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_the_name_beside_cannot_be_foreseen(target: Path) -> None:
    names = set()
    for _ in range(20):
        with new_file(target) as file:
            names.add(file.path.name)
    assert len(names) == 20


@needs_links
def test_a_link_in_its_way_is_not_followed(
    target: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path_factory.mktemp("elsewhere") / "victim"
    victim.write_bytes(b"mine")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0" * 16)
    with new_file(target) as file:
        name = file.path
    name.symlink_to(victim)
    with pytest.raises(FileExistsError):
        write(target)
    assert victim.read_bytes() == b"mine"
    name.unlink()
    name.symlink_to(victim.with_name("nothing"))
    with pytest.raises(FileExistsError):
        write(target)
    assert os.listdir(victim.parent) == [victim.name]


def test_the_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    write(tmp_path / ("n" * 255))
    assert [len(name) for name in os.listdir(tmp_path)] == [255]


def test_leftovers_are_known_by_what_they_were_to_become(target: Path) -> None:
    mine, other = leave(target), leave(target.with_name("other.csv"))
    users = target.with_name(".mine.dsvl-new")
    users.mkdir()
    found = find_leftovers(target.parent)
    assert set(found) == {mine, other}
    remove_leftovers(found, target, target.with_name("third"))
    assert set(os.listdir(target.parent)) == {target.name, other.name, users.name}
    remove_leftovers(found, target)  # it is gone already
    assert find_leftovers(target.parent / "nowhere") == []


def test_only_what_is_old_is_abandoned(target: Path) -> None:
    old, new = leave(target), leave(target)
    os.utime(old, (0, 0))
    remove_abandoned(target.parent)
    assert set(os.listdir(target.parent)) == {target.name, new.name}


@needs_links
@pytest.mark.fault("planted links and files")
def test_a_link_or_a_pipe_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"content"
    for name in ("link", "pipe", "nothing", "."):
        with pytest.raises(OSError, match=r".*"):
            open_regular(tmp_path / name).close()

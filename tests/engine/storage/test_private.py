"""What another user can have written is not taken for one's own."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from dsvl_cli.engine.storage.private import find_intruder, is_private_file, make_private_folder

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX owners and modes"),
    pytest.mark.fault("another user's file"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "a" / "b"
    make_private_folder(folder)
    (folder / "file").write_bytes(b"x")
    (folder / "file").chmod(0o600)
    return folder / "file"


def test_a_file_of_ones_own_is_private(file: Path) -> None:
    assert find_intruder(file) is None
    assert is_private_file(file)


def test_what_does_not_exist_yet_is_no_reason(tmp_path: Path) -> None:
    assert find_intruder(tmp_path / "not" / "there") is None
    assert not is_private_file(tmp_path / "not" / "there")


@pytest.mark.parametrize("place", ["file", "folder", "parent"])
def test_who_may_write_on_the_way_could_have_put_it_there(file: Path, place: str) -> None:
    opened = {"file": file, "folder": file.parent, "parent": file.parents[1]}[place]
    opened.chmod(opened.stat().st_mode | stat.S_IWOTH)
    assert str(opened) in (find_intruder(file) or "")
    assert not is_private_file(file)


@pytest.mark.parametrize("place", ["file", "folder", "parent"])
def test_another_owner_on_the_way_is_a_stranger(file: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owned = {"file": file, "folder": file.parent, "parent": file.parents[1]}[place]
    lstat = os.lstat

    def pretend(path: Path) -> os.stat_result:
        status = lstat(path)
        if Path(path) != owned:
            return status
        return os.stat_result([*status[:4], os.geteuid() + 1, *status[5:10]])

    monkeypatch.setattr(os, "lstat", pretend)
    assert find_intruder(file) == f"{owned} belongs to another user"


def test_a_sticky_folder_protects_what_is_in_it(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert find_intruder(file) is None


def test_a_group_of_others_is_others(file: Path) -> None:
    os.chmod(file.parent, 0o770)
    try:
        os.chown(file.parent, -1, 12345)
    except PermissionError:
        pytest.skip("only root gives files to other groups")
    assert find_intruder(file) is not None


def test_links_are_followed_and_files_may_not_be_any(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    assert not is_private_file(tmp_path / "link")
    (tmp_path / "way").symlink_to(file.parent)
    assert find_intruder(tmp_path / "way" / "file") is None
    file.parent.chmod(0o777)
    assert find_intruder(tmp_path / "way" / "file") is not None


def test_folders_are_private_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private_folder(tmp_path / "one" / "two" / "three")
    finally:
        os.umask(before)
    for folder in (tmp_path / "one", tmp_path / "one" / "two", tmp_path / "one" / "two" / "three"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dsvl_cli.engine.storage.folders import NewFolder
from dsvl_cli.errors import DsvlError

FILES = {"a": [b"1" * 10_000, b"2" * 10_000], "b": [b"", b"3"]}
OLD = {"old": b"4"}
STEPS = 12  # writes, syncs, renames and folders of one run, at most; a run that ends earlier is whole

# Kills itself, or runs out of disk, in the middle of the step whose number it is given.
CHILD = textwrap.dedent("""
    import errno, os, signal, sys
    from pathlib import Path
    from dsvl_cli.engine.storage import files, folders

    left, action, overwrite = int(sys.argv[2]), sys.argv[3], sys.argv[4] == "True"

    def step(before):
        global left
        left -= 1
        if left == 0:
            before()
            if action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

    def wrap(function):
        def wrapped(*args, **kwargs):
            step(lambda: None)
            return function(*args, **kwargs)
        return wrapped

    write = files.system.write
    def write_some(handle, piece):
        step(lambda: write(handle, piece[: len(piece) // 2]))
        return write(handle, piece)

    files.system.write = write_some
    files.system.sync = wrap(files.system.sync)
    Path.rename, Path.mkdir = wrap(Path.rename), wrap(Path.mkdir)
    with folders.NewFolder(Path(sys.argv[1]), overwrite=overwrite) as folder:
        for name, pieces in {"a": [b"1" * 10_000, b"2" * 10_000], "b": [b"", b"3"]}.items():
            (folder.write if name == "b" else folder.write_behind)(name, pieces)
        folder.commit()
""")


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(target: Path, *, overwrite: bool = False) -> None:
    with NewFolder(target, overwrite=overwrite) as folder:
        for name, pieces in FILES.items():
            folder.write(name, pieces)
        folder.commit()


NEW = {name: b"".join(pieces) for name, pieces in FILES.items()}


def test_a_folder_is_written_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "out")
    assert read(tmp_path / "deep" / "out") == NEW
    assert os.listdir(tmp_path / "deep") == ["out"]


def test_without_commit_nothing_stays(tmp_path: Path) -> None:
    with NewFolder(tmp_path / "out", overwrite=False) as folder:
        folder.write("a", [b"1"])
    assert os.listdir(tmp_path) == []


def test_what_is_written_behind_is_whole_in_the_end(tmp_path: Path) -> None:
    with NewFolder(tmp_path / "out", overwrite=False) as folder:
        for number in range(4):
            folder.write_behind(f"part-{number}", [bytes([number]) * 10_000])
        folder.rename("part-3", "last")
        folder.commit()
    names = ("part-0", "part-1", "part-2", "last")
    assert read(tmp_path / "out") == {name: bytes([number]) * 10_000 for number, name in enumerate(names)}


def test_what_goes_wrong_behind_is_raised_and_what_is_given_up_is_taken_away(tmp_path: Path) -> None:
    def fail() -> Iterator[bytes]:
        yield b"1"
        raise OSError(errno.ENOSPC, "No space left on device")

    def write_behind(pieces: Iterable[bytes], then: BaseException | None = None) -> None:
        with NewFolder(tmp_path / "out", overwrite=False) as folder:
            folder.write_behind("a", pieces)
            if then is not None:
                raise then
            folder.commit()

    with pytest.raises(OSError, match="No space"):
        write_behind(fail())
    with pytest.raises(KeyboardInterrupt):
        write_behind((b"1" * 1000 for _ in range(10**7)), KeyboardInterrupt())  # all of it would take minutes
    assert os.listdir(tmp_path) == []


def test_two_do_not_write_the_same_folder(tmp_path: Path) -> None:
    with NewFolder(tmp_path / "out", overwrite=False), pytest.raises(DsvlError, match="another dsvl"):
        write(tmp_path / "out")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("action", ["kill", "full"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_whatever_ends_it_the_folder_is_whole_or_not_there(
    tmp_path: Path, step: int, action: str, overwrite: bool
) -> None:
    target = tmp_path / "out"
    if overwrite:
        target.mkdir()
        (target / "old").write_bytes(OLD["old"])
    run = subprocess.run([sys.executable, "-c", CHILD, target, str(step), action, str(overwrite)], capture_output=True)
    stands = read(target) if target.exists() else None
    if run.returncode == 0:
        assert stands == NEW
        assert step > 6, "there are more steps than that"
    elif action == "full":
        assert f"{errno.ENOSPC}".encode() in run.stderr
        assert stands in (OLD if overwrite else None, NEW)
        assert set(os.listdir(tmp_path)) <= {"out"}
    else:
        assert run.returncode < 0
        assert stands in (OLD, NEW, None) if overwrite else stands in (NEW, None)
    # The next run takes leftovers away, and brings back what was about to be replaced.
    with NewFolder(target, overwrite=overwrite):
        pass
    assert set(os.listdir(tmp_path)) <= {"out"}
    if overwrite:
        assert read(target) in (OLD, NEW)
    write(target, overwrite=True)
    assert read(target) == NEW

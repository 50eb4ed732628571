"""Only one process at a time has a lock, and no file of it stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dsvl_cli.engine.storage.locks import PathLock

# Each takes the lock as often as it can, and counts in a file that only the holder may touch.
_WORK = """
import sys, time
from pathlib import Path
from dsvl_cli.engine.storage.locks import PathLock
lock, count, busy = PathLock(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
done = 0
while done < 40:
    if not lock.acquire():
        continue
    busy.touch(exist_ok=False)  # raises if another process is in here as well
    count.write_text(str(int(count.read_text()) + 1))
    busy.unlink()
    lock.release()
    done += 1
"""


def test_its_file_is_there_only_while_somebody_has_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    first, second = PathLock(path), PathLock(path)
    assert first.acquire()
    assert path.exists()
    assert not second.acquire()
    second.release()  # of what it never had
    assert path.exists()
    first.release()
    first.release()
    assert list(tmp_path.iterdir()) == []
    assert second.acquire()
    second.release()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_a_file_that_lost_its_name_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder removes the file between another's opening and locking of it."""
    import fcntl

    path = tmp_path / ".lock"
    holder, waiting = PathLock(path), PathLock(path)
    assert holder.acquire()
    flock = fcntl.flock

    def late(handle: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        holder.release()
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert waiting.acquire()
    assert path.exists()
    assert not PathLock(path).acquire()
    waiting.release()


def test_processes_never_hold_it_together(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", _WORK, str(tmp_path / ".lock"), str(count), str(tmp_path / "busy")]
    children = [subprocess.Popen(command) for _ in range(4)]
    assert [child.wait(120) for child in children] == [0] * 4
    assert count.read_text() == "160"
    assert not (tmp_path / ".lock").exists()

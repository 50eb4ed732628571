"""A file that appears whole or not at all.

It is written beside its place under a hidden name, brought to the disk, and renamed at the end. Whatever ends the
process before, what stands in its place is what stood there before. The hidden name cannot be foreseen, so that nobody
who may write to the folder can put a link there; what a killed process leaves is known by the rest of its name.

Every change goes through the calls of `system`, so that a test can let each of them fail.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LEFTOVER = re.compile(r"\.[0-9a-f]{12}-[0-9a-f]{16}\.dsvl-new")
_ABANDONED_SECONDS = 24 * 3600  # after which the process that was writing a file is surely gone
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class System:
    """The calls that change what is on the disk."""

    def write(self, handle: int, data: memoryview) -> int:
        """Write what the system takes at once; returns how many bytes that were."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """Bring a file, or the names in a folder, to the disk."""
        os.fsync(handle)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name, in one step; what had that name is gone."""
        os.replace(source, target)


system = System()


def create(path: Path, mode: int = 0o666) -> int:
    """Create a file to write to and give its handle; there must be nothing of that name yet, not even a link.

    Args:
        path: of the file.
        mode: its permissions, of which the umask takes some.
    """
    return os.open(path, _FLAGS, mode)


def write_all(handle: int, data: bytes | memoryview) -> None:
    """Write all of it, in as many steps as the system wants."""
    left = memoryview(data).cast("B")
    while left:
        left = left[system.write(handle, left) :]


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        system.sync(handle)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # as network file systems may have it
            raise
    finally:
        os.close(handle)


class NewFile:
    """A file that is being written beside its place; it has what a library needs to write into it.

    Attributes:
        path: where it is until it is whole.
    """

    def __init__(self, target: Path, mode: int = 0o666) -> None:
        self.path = target.with_name(f"{_prefix(target)}{secrets.token_hex(8)}.dsvl-new")
        self._handle = create(self.path, mode)
        self._written = 0
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes."""
        write_all(self._handle, data)
        size = memoryview(data).nbytes
        self._written += size
        return size

    def tell(self) -> int:
        """How many bytes there are."""
        return self._written

    def flush(self) -> None:
        """Nothing waits here."""

    def sync(self) -> None:
        """Bring it to the disk."""
        system.sync(self._handle)

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            self.closed = True
            os.close(self._handle)


@contextmanager
def new_file(target: Path, mode: int = 0o666) -> Iterator[NewFile]:
    """Write a file that appears whole or not at all: beside its place, brought to the disk, and renamed at the end.

    Args:
        target: the file's place; what stands there is replaced.
        mode: its permissions, of which the umask takes some.
    """
    file = NewFile(target, mode)
    try:
        yield file
        file.sync()
        file.close()
        system.replace(file.path, target)
    except BaseException:
        file.close()
        with suppress(OSError):
            file.path.unlink()
        raise
    sync_folder(target.parent)


def find_leftovers(folder: Path) -> list[Path]:
    """List what is being written in a folder, or was when a process was killed."""
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if _LEFTOVER.fullmatch(entry.name)]
    except OSError:
        return []


def remove_leftovers(leftovers: Iterable[Path], *targets: Path) -> None:
    """Take away what was to become one of some files. Nobody else may be writing them: the caller holds a lock.

    Args:
        leftovers: what `find_leftovers` found.
        targets: the files' places.
    """
    prefixes = tuple(map(_prefix, targets))
    for path in leftovers:
        if path.name.startswith(prefixes):
            with suppress(OSError):
                path.unlink()


def remove_abandoned(folder: Path) -> None:
    """Take away what nobody goes on writing in a folder in which several processes may be writing."""
    for path in find_leftovers(folder):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                path.unlink()


def _prefix(target: Path) -> str:
    # A name may be as long as names can be: a digest of it leaves room.
    return f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"

"""Atomic file writes.

A file is written under a hidden name in the same folder, flushed to disk, and renamed at the end. If the process dies
before that, the target is unchanged. The hidden name is unpredictable, so that nobody else with write access to the
folder can place a link there; the leftovers of a killed process are recognized by the pattern of the name.

Every change goes through the calls of `system`, so that a test can make each of them fail.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_LEFTOVER = re.compile(r"\.[0-9a-f]{12}-[0-9a-f]{16}\.dsvl-new")
_ABANDONED_SECONDS = 24 * 3600  # after which the process that was writing a file is assumed dead
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READING = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


class System:
    """The system calls that change the disk."""

    def write(self, handle: int, data: memoryview) -> int:
        """Write as much as the system accepts at once, and return the number of bytes."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """Flush a file or a folder to disk."""
        os.fsync(handle)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file atomically, replacing the target."""
        os.replace(source, target)


system = System()


def create(path: Path, mode: int = 0o666) -> int:
    """Create a file for writing and return its handle; nothing of that name may exist, not even a link.

    Args:
        path: the path of the file.
        mode: its permissions, reduced by the umask.
    """
    return os.open(path, _FLAGS, mode)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading: never through a link, and without waiting for the other end of a pipe.

    Raises:
        OSError: it does not exist, is a link or anything but a file, or cannot be read.
    """
    handle = os.open(path, _READING)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def write_all(handle: int, data: bytes | memoryview) -> None:
    """Write all of the data, in as many calls as needed."""
    left = memoryview(data).cast("B")
    while left:
        left = left[system.write(handle, left) :]


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk, if the platform supports it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        system.sync(handle)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # on some network file systems
            raise
    finally:
        os.close(handle)


class NewFile:
    """A file being written under a temporary name; has the methods that libraries need to write to it.

    Attributes:
        path: its temporary path.
    """

    def __init__(self, target: Path, mode: int = 0o666) -> None:
        self.path = target.with_name(f"{prefix_of(target)}{secrets.token_hex(8)}.dsvl-new")
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
        """Return the number of bytes written."""
        return self._written

    def flush(self) -> None:
        """Do nothing: writes are unbuffered."""

    def sync(self) -> None:
        """Flush it to disk."""
        system.sync(self._handle)

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            self.closed = True
            os.close(self._handle)


@contextmanager
def new_file(target: Path, mode: int = 0o666) -> Iterator[NewFile]:
    """Write a file atomically: under a temporary name, flushed to disk, and renamed at the end.

    Args:
        target: the final path; an existing file is replaced.
        mode: its permissions, reduced by the umask.
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
    """Return the temporary files in a folder: those being written, and those left by killed processes."""
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if _LEFTOVER.fullmatch(entry.name)]
    except OSError:
        return []


def remove_leftovers(leftovers: Iterable[Path], *targets: Path) -> None:
    """Remove the temporary files of some targets. The caller holds a lock, so that nobody else is writing them.

    Args:
        leftovers: what `find_leftovers` returned.
        targets: the final paths.
    """
    prefixes = tuple(map(prefix_of, targets))
    for path in leftovers:
        if path.name.startswith(prefixes):
            with suppress(OSError):
                path.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove old temporary files from a folder that other processes may be writing to."""
    for path in find_leftovers(folder):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                path.unlink()


def prefix_of(target: Path) -> str:
    """Return what the names of a target's hidden files begin with."""
    # The target's name may have the maximum length, so use a digest of it.
    return f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"

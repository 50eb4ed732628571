"""A lock between processes that leaves no file behind."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FLAGS = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC"))


class PathLock:
    """An exclusive lock by the name of a file, which is there only while somebody has the lock.

    The file is removed just before the lock is released. Whoever opened it earlier then locks a file without a name,
    which excludes nobody: so the locked file is compared with the one of that name, and locked again if they differ.
    The system releases the lock of a process that was killed; its file stays until the next one that takes the lock.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = -1
        self._other = FileLock(path, timeout=0)  # where there is no flock

    def acquire(self) -> bool:
        """Take the lock; return False if another process has it.

        Raises:
            OSError: the file cannot be created or locked.
        """
        if fcntl is None:
            with suppress(Timeout):
                self._other.acquire()
            return self._other.is_locked
        while True:
            handle = os.open(self.path, _FLAGS, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_named(handle):
                    self._handle = handle
                    return True
            except BlockingIOError:
                return False
            finally:
                if self._handle != handle:
                    os.close(handle)

    def release(self) -> None:
        """Remove the file, and let go of the lock; do nothing without one."""
        if fcntl is None:
            self._other.release()
            with suppress(OSError):  # another process may have opened it
                self.path.unlink()
        elif self._handle >= 0:
            with suppress(OSError):
                self.path.unlink()
            os.close(self._handle)
            self._handle = -1

    def _is_named(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(handle))
        except FileNotFoundError:
            return False

"""Atomic folder writes.

A folder is written under a hidden name beside its target, flushed to disk, and renamed at the end. If the process dies
before that, the target is unchanged, and the next run removes the leftovers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from dsvl_cli.engine.storage import files
from dsvl_cli.engine.storage.locks import PathLock
from dsvl_cli.errors import DsvlError


class NewFolder:
    """Writes a folder; use it in a `with` statement and `commit` at its end, or nothing is kept.

    Args:
        target: the final path.
        overwrite: replace an existing folder; the caller checks whether it may be replaced.

    Raises:
        DsvlError: on entering, if another process is writing to the same target.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.dsvl-new")
        self._overwrite = overwrite
        self._old = target.with_name(f".{target.name}.dsvl-old")
        self._lock = PathLock(target.with_name(f".{target.name}.dsvl-lock"))
        self._writer = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._is_over = False

    def __enter__(self) -> NewFolder:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if not self._lock.acquire():
            raise DsvlError(f"another dsvl is writing {self.target}", "wait until it has finished")
        try:
            self._tidy()
            self.path.mkdir()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        self._writer.shutdown()
        self._tidy()
        self._lock.release()

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file and flush it to disk."""
        handle = files.create(self.path / name)
        try:
            for piece in pieces:
                left = memoryview(piece).cast("B")
                while left:
                    if self._is_over:
                        return
                    left = left[files.system.write(handle, left) :]
            files.system.sync(handle)
        finally:
            os.close(handle)

    def write_behind(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file in the background; waits for the previous one first.

        Raises:
            OSError: the previous file could not be written.
        """
        self.settle()
        self._pending = self._writer.submit(self.write, name, pieces)

    def settle(self) -> None:
        """Wait until everything is on disk.

        Raises:
            OSError: a file could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def rename(self, name: str, new_name: str) -> None:
        """Rename a written file."""
        self.settle()
        (self.path / name).rename(self.path / new_name)

    def commit(self) -> None:
        """Move the folder to its target."""
        self.settle()
        files.sync_folder(self.path)
        if self._overwrite and self.target.exists():
            self.target.rename(self._old)
        self.path.rename(self.target)
        files.sync_folder(self.target.parent)

    def _tidy(self) -> None:
        """Remove what this run or an earlier one left; restore a folder whose replacement was interrupted."""
        if self._old.exists() and not self.target.exists():
            self._old.rename(self.target)
        for leftover in (self.path, self._old):
            shutil.rmtree(leftover, ignore_errors=True)

"""Everything that a batch writes goes through the three calls of `system`, so that a test can let each of them fail."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dsvl_cli.errors import DsvlError


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


def write_all(handle: int, data: bytes | memoryview) -> None:
    """Write all of it, in as many steps as the system wants."""
    left = memoryview(data)
    while left:
        left = left[system.write(handle, left) :]


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        system.sync(handle)
    finally:
        os.close(handle)


class NewFile:
    """A file that is being written beside its place; it has what a library needs to write into it.

    Attributes:
        path: where it is until it is whole.
    """

    def __init__(self, target: Path) -> None:
        # The name may be as long as names can be: a digest of it leaves room.
        self.path = target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}.dsvl-new")
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        self._written = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Append bytes."""
        write_all(self._handle, data)
        self._written += len(data)
        return len(data)

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
def new_file(target: Path) -> Iterator[NewFile]:
    """Write a file that appears whole or not at all: beside its place, brought to the disk, and renamed at the end."""
    file = NewFile(target)
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


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Tell a failure of writing as the user should hear it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise DsvlError(
            f"{path}: cannot be written: {exc.strerror or exc}",
            "what was finished is kept; when this is mended, the same command goes on from there",
        ) from exc

"""Remembers which pictures are being decoded, so that one that ends the process is known to the next run."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsvl_cli.engine.storage.files import open_regular

_RECORD = 40  # bytes: 32 hexadecimal digits, a space, a count of 6 digits, a line feed
_MAX_RECORDS = 64


class Trials:
    """A small file with one record for each picture that is being decoded; thread-safe.

    A record is written before a picture is tried and blanked afterwards, at the cost of two short writes. They are not
    flushed to disk: they survive the end of the process, and a power failure is no picture's fault.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._handle = -1
        self._free: list[int] = []
        self._size = 0
        self._earlier: dict[str, int] = {}

    def open(self) -> None:
        """Read what an earlier run left, and begin a file of this one.

        Raises:
            OSError: it cannot be read or written, or is a link.
        """
        self._earlier = self._read()
        flags = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_BINARY"))
        self._handle = os.open(self._path, flags, 0o666)

    def close(self) -> None:
        """Remove the file; what was still being tried is no longer of interest."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1
                self._path.unlink(missing_ok=True)

    def ended(self, id: str) -> int:  # noqa: A002
        """Return how many runs in a row ended while an item's pictures were being decoded."""
        return self._earlier.get(_digest(id), 0)

    @contextmanager
    def attempt(self, id: str) -> Iterator[None]:  # noqa: A002
        """Note that an item's pictures are being decoded, for as long as the context lasts."""
        digest = _digest(id)
        with self._lock:
            slot = self._free.pop() if self._free else self._size
            self._size = max(self._size, slot + 1)
            self._write(slot, f"{digest} {self._earlier.get(digest, 0) + 1:06d}\n")
        try:
            yield
        finally:
            with self._lock:
                self._write(slot, "\n".rjust(_RECORD))
                self._free.append(slot)

    def _write(self, slot: int, record: str) -> None:
        if self._handle >= 0 and slot < _MAX_RECORDS:
            os.lseek(self._handle, slot * _RECORD, os.SEEK_SET)
            os.write(self._handle, record.encode())

    def _read(self) -> dict[str, int]:
        try:
            with open_regular(self._path) as file:
                words = [line.split() for line in file.read(_RECORD * _MAX_RECORDS).decode("ascii").splitlines()]
        except (FileNotFoundError, UnicodeDecodeError):
            return {}
        return {line[0]: int(line[1]) for line in words if len(line) == 2 and line[1].isdigit()}


def _digest(id: str) -> str:  # noqa: A002
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:32]

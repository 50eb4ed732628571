"""Random access to entries that can only be read sequentially from certain start points."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from dsvl_cli.errors import ImageError

T = TypeVar("T")
Stream = Generator[T, None, None]

_WINDOW_BYTES = 32 * 2**20


class SequentialReader(Generic[T]):
    """Returns the entry at any index; thread-safe, and cheap if indices are mostly ascending.

    The last entries read are cached, up to 32 MiB, for threads that read slightly out of order. Reading further back,
    or past a later start point, opens a new stream.

    Args:
        beginning: returns the last start point at or before an index.
        start: opens a stream of the entries from a start point on. The stream raises ImageError on failure.
        size: returns the size of an entry in bytes.
    """

    def __init__(
        self, beginning: Callable[[int], int], start: Callable[[int], Stream[T]], size: Callable[[T], int]
    ) -> None:
        self._beginning = beginning
        self._start = start
        self._size = size
        self._lock = threading.Lock()
        self._stream: Stream[T] | None = None
        self._next = 0
        self._window: OrderedDict[int, T] = OrderedDict()
        self._window_bytes = 0

    def read(self, index: int) -> T:
        """Return the entry at an index.

        Raises:
            ImageError: the stream cannot be read up to that index.
        """
        with self._lock:
            return self._window[index] if index in self._window else self._advance(index)

    def _advance(self, index: int) -> T:
        beginning = self._beginning(index)
        if self._stream is None or not beginning <= self._next <= index:
            self._close()
            self._stream, self._next = self._start(beginning), beginning
        try:
            for entry in self._stream:
                self._keep(self._next, entry)
                self._next += 1
                if self._next > index:
                    return entry
        except BaseException:
            self._close()
            raise
        self._close()
        raise ImageError("the file became shorter during the run")

    def _keep(self, index: int, entry: T) -> None:
        self._window[index] = entry
        self._window_bytes += self._size(entry)
        while self._window_bytes > _WINDOW_BYTES and len(self._window) > 1:
            _, dropped = self._window.popitem(last=False)
            self._window_bytes -= self._size(dropped)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self._window.clear()
        self._window_bytes = 0

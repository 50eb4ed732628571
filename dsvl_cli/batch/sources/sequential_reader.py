"""Any place, for those who ask mostly in order, of what can only be read onwards from a few places."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from dsvl_cli.errors import ImageError

T = TypeVar("T")
Stream = Generator[T, None, None]

_WINDOW_BYTES = 32 * 2**20


class ForwardReader(Generic[T]):
    """Gives the entry at any index, to any thread; cheap where indices mostly grow.

    What was passed last is kept, up to 32 MiB, for threads that ask a little out of order. Who asks for what lies
    further back, or beyond a nearer beginning, starts a new stream.

    Args:
        beginning: the index of the last place at or before the given index where a stream can begin.
        start: opens a stream of the entries from such a place on. It raises ImageError where it cannot go on.
        size: of an entry, in bytes.
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
            ImageError: the stream cannot be read as far as there.
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
        raise ImageError("the file has become shorter since it was searched")

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

"""Reads ahead in threads: items become tasks in order, and those that take long hold up no others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Generic, TypeVar

from dsvl_cli.batch.item import Item

AHEAD = 16  # items read in advance, each in a thread, so that those that take long hold up no others
_PATIENCE_SECONDS = 0.2  # wait for the next item before finishing the requests in flight without it
_READING_SECONDS = 1.0  # the same, while items are being read
_SLOW_SECONDS = 0.1  # an item that takes longer is overtaken by those behind it
_POLL_SECONDS = 0.02

T = TypeVar("T")


class Budget:
    """Bounds the bytes that are held at a time; thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def take(self, size: int) -> int:
        """Wait until there is room for so many bytes, or nothing else is held; return their number."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not self._held or self._held + size <= self._limit)
            self._held += size
        return size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Let everyone through."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class ReadAhead(Generic[T]):
    """Prepares items in threads and returns them in order, except that slow ones are overtaken."""

    def __init__(self, pool: ThreadPoolExecutor, items: Iterable[Item | None], prepare: Callable[[Item], T]) -> None:
        self._pool = pool
        self._items = iter(items)
        self._prepare = prepare
        self._futures: deque[Future[T]] = deque()
        self._is_exhausted = False
        self._awaited: Future[T] | None = None
        self._awaited_since = 0.0

    @property
    def is_done(self) -> bool:
        """Whether all items have been taken."""
        return self._is_exhausted and not self._futures

    def take(self, is_stopped: Callable[[], bool], *, is_patient: bool) -> T | None:
        """Return the next task.

        Returns:
            None if there are no more, none is ready in time and `is_patient` is False, or work is stopped.
        """
        began_at = time.monotonic()
        while True:
            self._fill()
            if (ready := self._find_ready()) is not None:
                self._futures.remove(ready)
                return ready.result()
            waited = time.monotonic() - began_at
            patience = _READING_SECONDS if self._futures else _PATIENCE_SECONDS
            if self.is_done or is_stopped() or (not is_patient and waited >= patience):
                return None
            if self._futures:
                # The first alone, as long as it is not overdue: to wait for many costs more than a small picture.
                wait_for(self._futures if self._is_overdue() else [self._futures[0]], _POLL_SECONDS, FIRST_COMPLETED)
            else:
                time.sleep(_POLL_SECONDS)

    def _find_ready(self) -> Future[T] | None:
        if not self._futures:
            return None
        head = self._futures[0]
        if head.done() or not self._is_overdue():
            return head if head.done() else None
        return next((future for future in self._futures if future.done()), None)

    def _is_overdue(self) -> bool:
        """Whether the first item has been waited for longer than others are to wait behind it."""
        if self._futures[0] is not self._awaited:
            self._awaited, self._awaited_since = self._futures[0], time.monotonic()
        return time.monotonic() - self._awaited_since >= _SLOW_SECONDS

    def _fill(self) -> None:
        while not self._is_exhausted and len(self._futures) < AHEAD:
            try:
                item = next(self._items)
            except StopIteration:
                self._is_exhausted = True
                return
            if item is None:
                return
            self._futures.append(self._pool.submit(self._prepare, item))

"""Finds items in a background thread: their number is known early, and a slow source does not block work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, Full, Queue

from dsvl_cli.batch.item import Item

_MOST_AHEAD = 200_000  # items, at about 400 bytes each
_POLL_SECONDS = 0.2


class Scanner:
    """Finds items in a background thread and queues those to be processed.

    Args:
        items: the items; errors raised by this iterable are raised again when iterating over the scanner.
        select: returns the item to process, or None to skip it; called in the thread.

    Attributes:
        found: the number of items found so far.
        due: the number of items to process found so far.
        is_complete: whether the search has ended.
    """

    def __init__(self, items: Iterable[Item], select: Callable[[Item], Item | None]) -> None:
        self.found = 0
        self.due = 0
        self.is_complete = False
        self._items = items
        self._select = select
        self._queue: Queue[Item] = Queue(_MOST_AHEAD)
        self._error: BaseException | None = None
        self._is_closed = False
        self._has_news = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scan", daemon=True)

    def start(self) -> None:
        """Start the search."""
        self._thread.start()

    def close(self) -> None:
        """Stop the search and end the iteration."""
        self._is_closed = True

    def wait(self) -> bool:
        """Wait for the first item to process or the end of the search; return whether there is one.

        Raises:
            Exception: the error that ended the search before it found an item to process.
        """
        while not self._has_news.wait(_POLL_SECONDS):  # in steps, so that signals are handled
            pass
        if self.due == 0 and self._error is not None:
            raise self._error
        return self.due > 0

    def __iter__(self) -> Iterator[Item | None]:
        """Yield the items to process; None means that none is available right now.

        Raises:
            Exception: the error that ended the search, after the items found before it.
        """
        while not self._is_closed:
            is_complete = self.is_complete  # read first: if true, all items are already in the queue
            try:
                yield self._queue.get_nowait()
            except Empty:
                if is_complete:
                    break
                yield None
        if self._error is not None and not self._is_closed:
            raise self._error

    def _run(self) -> None:
        try:
            for item in self._items:
                self.found += 1
                chosen = self._select(item)
                if chosen is not None:
                    self._put(chosen)
                if self._is_closed:
                    break
        except BaseException as exc:
            self._error = exc
        finally:
            self.is_complete = True
            self._has_news.set()

    def _put(self, item: Item) -> None:
        self.due += 1
        while not self._is_closed:
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
                break
            except Full:
                continue
        self._has_news.set()

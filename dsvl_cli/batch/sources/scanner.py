"""Items found in a thread, ahead of their use: how many there are is known early, and nobody waits for a slow list."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, Full, Queue

from dsvl_cli.batch.item import Item

_MOST_AHEAD = 200_000  # items, at about 400 bytes each
_POLL_SECONDS = 0.2


class Supply:
    """Finds items in a thread of its own.

    Args:
        items: what there is; its errors come out of the iteration here.
        select: gives what is to be done of an item, None where nothing is; called in the thread.

    Attributes:
        found: how many items were found so far.
        due: how many of them are to be done.
        is_complete: whether all were found.
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
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking; the iteration ends."""
        self._is_closed = True

    def wait(self) -> bool:
        """Wait until there is something to be done, or it is known that there is nothing; returns which.

        Raises:
            Exception: the error that ended the search before anything was found.
        """
        while not self._has_news.wait(_POLL_SECONDS):  # in steps, for a signal to come through
            pass
        if self.due == 0 and self._error is not None:
            raise self._error
        return self.due > 0

    def __iter__(self) -> Iterator[Item | None]:
        """Give away the items; None says that there is none just now.

        Raises:
            Exception: the error that ended the search, after what was found before it.
        """
        while not self._is_closed:
            is_complete = self.is_complete  # before looking: what came first is in the queue by then
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

"""Decodes pictures for a batch: none takes the run with it, holds it up for long, or all of its memory.

Ordinary pictures (`headers.py`) are decoded in place: their time and memory are known beforehand. All others go to
processes of their own (`worker.py`), which are started when the first such picture comes.

Sending 12 megapixels there and back takes 0.2 to 0.4 s, against 0.1 s to decode a JPEG or TIFF, 0.3 s for an AVIF and
5 s for a JPEG 2000; to look at the headers takes 10 µs, or 0.2 ms for a PNG. So a folder of ordinary pictures takes as
long as without all this, and only those pay for it that are slow anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.options import count_cpus
from dsvl_cli.engine.pictures.headers import ordinary_size
from dsvl_cli.engine.pictures.images import picture_from_bytes, picture_from_pixels
from dsvl_cli.engine.pictures.signatures import SAVE_AS_PNG
from dsvl_cli.engine.pictures.worker import Worker, WorkerDied, WorkerUnavailable
from dsvl_cli.errors import ImageError

_BYTES_PER_PIXEL = 12  # three copies, as when transparency is put on white
_HERE_BYTES = 2**30
_MOST_THREADS = 4
_MOST_WORKERS = 4
_SMALL_BYTES = 512 * 2**20
_LARGE_BYTES = 2560 * 2**20  # for a picture of 175 megapixels, alone
_CHECK_SECONDS = 0.1


class BoundedDecoder:
    """Makes pictures of encoded files; thread-safe.

    What is being decoded at a time takes at most 1 GiB in place, and in other processes 512 MiB in each of four, or
    2.5 GiB in one alone. Neither waits for the other.
    """

    def __init__(self) -> None:
        self._here = _Gate(_HERE_BYTES)
        self._cpus = threading.Semaphore(min(_MOST_THREADS, count_cpus()))
        self._elsewhere = _Gate(_MOST_WORKERS * _SMALL_BYTES)
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._is_closed = threading.Event()
        self._is_available = True
        self._watcher: threading.Thread | None = None

    def read(self, data: bytes, name: str, *, careful: bool = False) -> Picture:
        """Decode a picture, and return it.

        Args:
            data: the encoded file.
            name: its name in messages.
            careful: decode it in another process, however ordinary it looks.

        Raises:
            ImageError: it is damaged, too large, not a picture, or takes too long or too much memory.
        """
        size = None if careful else ordinary_size(data)
        if size is not None or not data or not (careful or self._is_available):
            wanted = _BYTES_PER_PIXEL * size[0] * size[1] if size else self._here.capacity
            with self._cpus, self._here.hold(wanted):
                return picture_from_bytes(data, name)
        try:
            return self._read_elsewhere(data, name)
        except WorkerDied as exc:
            raise ImageError(f"{name}: {exc}", SAVE_AS_PNG) from exc
        except WorkerUnavailable:
            self._is_available = False
            if careful:
                raise ImageError(f"{name}: not tried again: a run ended while it was being read") from None
            return self.read(data, name)

    def close(self) -> None:
        """End all processes; whoever still waits for one gets an error."""
        self._is_closed.set()
        with self._lock:
            for worker in self._busy:
                worker.kill("closed")
            for worker in self._idle:
                worker.close()
            self._idle.clear()

    def _read_elsewhere(self, data: bytes, name: str) -> Picture:
        for memory in (_SMALL_BYTES, _LARGE_BYTES):
            with self._elsewhere.hold(memory), suppress(MemoryError), self._worker() as worker:
                found = worker.decode(data, name, memory)
                return picture_from_pixels(data, name, (found.width, found.height), found.pixels, found.notes)
        raise ImageError(
            f"{name}: decoding takes more than {_LARGE_BYTES / 2**30:g} GiB of memory", "make it smaller first"
        )

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or Worker()
        with self._lock:
            self._busy.add(worker)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="dsvl-decoders", daemon=True)
                self._watcher.start()
        is_alive = False
        try:
            if self._is_closed.is_set():
                raise WorkerDied("closed")
            yield worker
            is_alive = True
        except (ImageError, MemoryError):
            is_alive = worker.is_alive
            raise
        finally:
            with self._lock:
                self._busy.discard(worker)
                if is_alive and not self._is_closed.is_set():
                    self._idle.append(worker)
                else:
                    worker.close()

    def _watch(self) -> None:
        while not self._is_closed.wait(_CHECK_SECONDS):
            with self._lock:
                busy = list(self._busy)
            for worker in busy:
                worker.check()


class _Gate:
    """Lets work through as long as the memory that it takes is below a limit; what takes more goes alone."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = capacity
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, wanted: int) -> Iterator[None]:
        wanted = min(wanted, self.capacity)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()

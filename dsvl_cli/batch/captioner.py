"""Turns items into rows by asking a model about their pictures.

A `Captioner` is called with items and yields rows. It is independent of output files, journals and progress display,
so other frameworks can run it on other machines.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.notes import Notes
from dsvl_cli.batch.row import ONLY, Answer, Failure, Row
from dsvl_cli.engine.conversation import (
    BatchModel,
    Conversation,
    FinishReason,
    Message,
    Outcome,
    Part,
    Picture,
    Request,
    compose_parts,
)
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.pictures.bounded import BoundedDecoder
from dsvl_cli.errors import DsvlError, ImageError, UsageError

Judge = Callable[[str, str, FinishReason], str | None]
Fill = Callable[[Mapping[str, str], Item], Mapping[str, str]]

_AHEAD = 16  # items read in advance, each in a thread, so that those that take long hold up no others
_READERS = 4
_AHEAD_BYTES = 256 * 2**20  # of encoded pictures; nothing more is read once so much is waiting
_MANY_ROWS = 16  # rows that need no model; once this many are pending, they are yielded before more items start
_PATIENCE_SECONDS = 0.2  # wait for the next item before finishing the requests in flight without it
_READING_SECONDS = 1.0  # the same, while items are being read
_SLOW_SECONDS = 0.1  # an item that takes longer is overtaken by those behind it
_MOST_ENDED = 3  # runs that may end over an item before it is given up
_POLL_SECONDS = 0.02


class Trials(Protocol):
    """Remembers which items are being read, across runs; see `dsvl_cli.batch.output.trials`."""

    def ended(self, id: str) -> int:  # noqa: A002
        """Return how many runs in a row ended while an item was being read."""
        ...

    def attempt(self, id: str) -> AbstractContextManager[None]:  # noqa: A002
        """Note that an item is being read, for as long as the context lasts."""
        ...


class _NoTrials:
    def ended(self, id: str) -> int:  # noqa: A002
        return 0

    def attempt(self, id: str) -> AbstractContextManager[None]:  # noqa: A002
        return nullcontext()


@dataclass(slots=True)
class _Task:
    """An item being processed."""

    item: Item
    prompts: Mapping[str, str]
    pictures: Sequence[Picture] = ()
    sha256: str | None = None
    failure: Failure | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    open: int = 0  # number of questions still unanswered
    held: int = 0  # bytes of its pictures


class Captioner:
    """Asks a model about each item; see `__call__`.

    Args:
        model: answers the questions.
        questions: prompts for each picture by question name; `{ONLY: prompt}` for a single question. An item's own
            prompt replaces them.
        system: replaces the model's default system prompt; None keeps it.
        sampling: sampling parameters of the answers.
        batch_size: maximum number of concurrent requests; None leaves it to the model.
        judge: takes text, prompt and finish reason of an answer; returns why it is suspect, or None.
        fill: returns the questions for an item, whose variables it fills in. Raises ImageError.
        trials: remembers what is being read, so that an item that ends the process is not tried in vain by each run.

    Attributes:
        notes: what is to be said about the pictures.
    """

    def __init__(
        self,
        model: BatchModel,
        questions: Mapping[str, str],
        system: str | None,
        sampling: SamplingParams,
        batch_size: int | None = None,
        judge: Judge = lambda *_: None,
        trials: Trials | None = None,
        fill: Fill = lambda questions, _: questions,
    ) -> None:
        self._model = model
        self._questions = questions
        self._system = system
        self._sampling = sampling
        self._batch_size = batch_size
        self._judge = judge
        self._trials = trials or _NoTrials()
        self._fill = fill
        self.notes = Notes()
        self._decoder = BoundedDecoder()
        self._held = _Budget(_AHEAD_BYTES)
        self._readers = threading.Semaphore(_READERS)
        self._stopped = False
        self._tasks: dict[int, _Task] = {}
        self._rows: deque[Row] = deque()
        self._taken = 0

    def stop(self) -> None:
        """Start no more items; those in flight still become rows. Safe in any thread or signal handler."""
        self._stopped = True

    def __call__(self, items: Iterable[Item | None]) -> Iterator[Row]:
        """Yield a row for each item as soon as it is ready, in any order.

        Pictures are read and checked in advance in threads, within bounds of time and memory. An item whose reading
        takes long is overtaken by others. Closing the iterator stops the work.

        Args:
            items: consumed a few items in advance. None means that no item is available right now.
        """
        self._decoder = BoundedDecoder()
        self._held = _Budget(_AHEAD_BYTES)
        pool = ThreadPoolExecutor(_AHEAD, "read")
        try:
            ahead = _ReadAhead(pool, items, self._prepare)
            while not (ahead.is_done or self._stopped):
                with closing(_as_generator(self._model.answer_all(self._requests(ahead), self._batch_size))) as found:
                    for outcome in found:
                        self._settle(outcome)
                        yield from self._take_rows()
                yield from self._take_rows()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self._held.close()
            self._decoder.close()

    def _take_rows(self) -> Iterator[Row]:
        while self._rows:
            yield self._rows.popleft()

    def _prepare(self, item: Item) -> _Task:
        """Read and validate an item's pictures; called in threads."""
        task = _Task(item, self._questions if item.prompt is None else {ONLY: item.prompt})
        try:
            ended = self._trials.ended(item.id)
            if ended >= _MOST_ENDED:
                raise ImageError(f"{item.path}: given up: {ended} runs ended while it was being read")
            with self._trials.attempt(item.id):
                with self._readers:
                    data = item.read()
                    task.held = self._held.take(sum(map(len, data)))
                task.sha256 = hash_pictures(data)
                if (
                    item.prompt is None
                ):  # after the hash, without which the row would look as if the picture had changed
                    task.prompts = item.prompts or self._fill(self._questions, item)
                task.pictures = [self._decoder.read(each, item.path, careful=ended > 0) for each in data]
                for note in (note for picture in task.pictures for note in picture.notes):
                    self.notes.add(item.path, note)
        except DsvlError as error:
            task.failure = _failure(error)
        except MemoryError:
            task.failure = _failure(ImageError(f"{item.path}: not enough memory to read it"))
        except OSError as exc:
            task.failure = _failure(ImageError(f"{item.path}: cannot be read: {exc.strerror or 'unknown error'}"))
        except Exception as exc:  # whatever is wrong with one item must not end the others
            task.failure = _failure(ImageError(f"{item.path}: cannot be read: {type(exc).__name__}"))
        return task

    def _requests(self, ahead: _ReadAhead) -> Iterator[Request]:
        """Yield the requests of one call of the model.

        They end when no item arrives for a while, so that the requests in flight can finish, and when many rows
        without an answer are waiting to be yielded.
        """
        is_working = False
        while not self._stopped and len(self._rows) < _MANY_ROWS:
            task = ahead.take(lambda: self._stopped, is_patient=not (is_working or self._rows))
            if task is None:
                return
            self._held.give(task.held)
            requests = list(self._write(task))
            if not requests:
                self._rows.append(self._row(task))
            is_working = is_working or bool(requests)
            yield from requests

    def _write(self, task: _Task) -> Iterator[Request]:
        """Yield an item's requests, one for each question in order; none if the item has failed."""
        if task.failure is not None:
            return
        number, self._taken = self._taken, self._taken + 1
        system = self._system if task.item.system is None else task.item.system
        requests = []
        try:
            sampling = replace(self._sampling, **task.item.sampling)
            for name, prompt in task.prompts.items():
                talk = Conversation([Message("user", _compose(task, prompt))], system)
                requests.append(Request((number, name), talk, sampling))
        except DsvlError as error:
            task.failure = _failure(error)
            return
        except TypeError as exc:  # an unknown sampling parameter
            task.failure = Failure("UsageError", f"{task.item.path}: {exc}")
            return
        except Exception as exc:
            task.failure = Failure("DsvlError", f"{task.item.path}: cannot be asked about: {type(exc).__name__}")
            return
        task.open = len(requests)
        self._tasks[number] = task
        yield from requests

    def _settle(self, outcome: Outcome) -> None:
        number, name = cast("tuple[int, str]", outcome.key)
        task = self._tasks[number]
        task.open -= 1
        reply = outcome.reply
        if outcome.error is not None:
            task.failure = task.failure or _failure(outcome.error)
        elif reply is not None:
            stats = reply.stats
            task.answers[name] = Answer(
                reply.text,
                reply.finish_reason,
                stats.prompt_tokens if stats else None,
                stats.generated_tokens if stats else None,
                round(stats.prompt_seconds + stats.generate_seconds, 3) if stats else None,
                self._judge(reply.text, task.prompts[name], reply.finish_reason),
            )
        if not task.open:
            del self._tasks[number]
            self._rows.append(self._row(task))

    def _row(self, task: _Task) -> Row:
        first = task.pictures[0] if task.pictures else None
        return Row(
            id=task.item.id,
            path=task.item.path,
            prompts=task.prompts,
            answers={name: task.answers[name] for name in task.prompts if name in task.answers},
            model=self._model.name,
            width=first.width if first else None,
            height=first.height if first else None,
            sha256=task.sha256,
            error=task.failure,
        )


class _Budget:
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


class _ReadAhead:
    """Prepares items in threads and returns them in order, except that slow ones are overtaken."""

    def __init__(
        self, pool: ThreadPoolExecutor, items: Iterable[Item | None], prepare: Callable[[Item], _Task]
    ) -> None:
        self._pool = pool
        self._items = iter(items)
        self._prepare = prepare
        self._futures: deque[Future[_Task]] = deque()
        self._is_exhausted = False
        self._awaited: Future[_Task] | None = None
        self._awaited_since = 0.0

    @property
    def is_done(self) -> bool:
        """Whether all items have been taken."""
        return self._is_exhausted and not self._futures

    def take(self, is_stopped: Callable[[], bool], *, is_patient: bool) -> _Task | None:
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

    def _find_ready(self) -> Future[_Task] | None:
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
        while not self._is_exhausted and len(self._futures) < _AHEAD:
            try:
                item = next(self._items)
            except StopIteration:
                self._is_exhausted = True
                return
            if item is None:
                return
            self._futures.append(self._pool.submit(self._prepare, item))


def hash_pictures(data: Sequence[bytes]) -> str | None:
    """Return the hexadecimal SHA-256 of a picture, or of the concatenated digests of several; None without pictures."""
    digests = "".join(hashlib.sha256(each).hexdigest() for each in data)
    return hashlib.sha256(digests.encode()).hexdigest() if len(data) > 1 else digests or None


def _compose(task: _Task, prompt: str) -> tuple[Part, ...]:
    """Insert an item's pictures between its own texts, or at the image marks of the run's prompt.

    Raises:
        DsvlError: the number of pictures does not match.
    """
    parts, pictures = task.item.parts, task.pictures
    if parts is None:
        return compose_parts(prompt, pictures)
    if parts.count(None) != len(pictures):
        raise ImageError(f"{task.item.path}: the number of pictures changed after the request was read", "run it again")
    following = iter(pictures)
    return tuple(next(following) if part is None else part for part in parts)


def _failure(error: DsvlError) -> Failure:
    kind = UsageError if isinstance(error, UsageError) else type(error)  # readers of rows know no finer one
    return Failure(kind.__name__, error.message)


def _as_generator(outcomes: Iterator[Outcome]) -> Generator[Outcome, None, None]:
    """Wrap any iterator in a generator, which has `close`."""
    yield from outcomes

"""Turns items into rows by asking a model about their pictures.

A `Captioner` is called with items and yields rows. It is independent of output files, journals and progress display,
so other frameworks can run it on other machines.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, cast

from dsvl_cli.batch.answers import Asked, Judge, read_answer
from dsvl_cli.batch.item import Item
from dsvl_cli.batch.notes import Notes
from dsvl_cli.batch.quality import find_suspicion
from dsvl_cli.batch.read_ahead import AHEAD, Budget, ReadAhead
from dsvl_cli.batch.row import ONLY, Answer, Failure, Row
from dsvl_cli.engine.constraints import Constraint
from dsvl_cli.engine.conversation import (
    BatchModel,
    Conversation,
    Message,
    Outcome,
    Picture,
    Request,
    Role,
    compose_parts,
)
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.pictures.bounded import BoundedDecoder
from dsvl_cli.engine.schemas import add_explanation
from dsvl_cli.errors import DsvlError, ImageError, UsageError

if TYPE_CHECKING:
    from dsvl_cli.batch.output.settings import Settings

Fill = Callable[[Mapping[str, str], Item], Mapping[str, str]]

_READERS = 4
_AHEAD_BYTES = 256 * 2**20  # of encoded pictures; nothing more is read once so much is waiting
_MANY_ROWS = 16  # rows that need no model; once this many are pending, they are yielded before more items start
_MOST_ENDED = 3  # runs that may end over an item before it is given up


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
    asked: dict[str, Asked] = field(default_factory=dict)
    open: int = 0  # number of requests still unanswered
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
        constraints: what form the answers to some questions must have. That of an item's sampling wins.
        least_probability: an answer from a list is suspect below it.
        samples: how many answers to give to each question. Those of a question share all of its prompt.
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
        constraints: Mapping[str, Constraint] | None = None,
        least_probability: float = 0.0,
        samples: int = 1,
    ) -> None:
        self._model = model
        self._questions = questions
        self._system = system
        self._sampling = sampling
        self._batch_size = batch_size
        self._judge = judge
        self._trials = trials or _NoTrials()
        self._fill = fill
        self._constraints = constraints or {}
        self._least_probability = least_probability
        self._samples = samples
        self.notes = Notes()
        self._decoder = BoundedDecoder()
        self._held = Budget(_AHEAD_BYTES)
        self._readers = threading.Semaphore(_READERS)
        self._stopped = False
        self._tasks: dict[int, _Task] = {}
        self._rows: deque[Row] = deque()
        self._taken = 0

    @classmethod
    def of(
        cls,
        model: BatchModel,
        settings: Settings,
        batch_size: int | None = None,
        trials: Trials | None = None,
        fill: Fill = lambda questions, _: questions,
    ) -> Captioner:
        """Return the captioner of a batch with the given settings, whichever engine runs it."""
        return cls(
            model,
            settings.prompts,
            settings.system,
            settings.read_sampling(),
            batch_size,
            find_suspicion,
            trials,
            fill,
            settings.read_constraints(),
            settings.least_probability,
            settings.samples,
        )

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
        self._held = Budget(_AHEAD_BYTES)
        pool = ThreadPoolExecutor(AHEAD, "read")
        try:
            ahead = ReadAhead(pool, items, self._prepare)
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
                if item.prompt is None:
                    # After the hash, without which the row would look as if the picture had changed.
                    task.prompts = item.prompts or self._fill(self._questions, item)
                task.pictures = [self._decoder.read(each, item.path, careful=ended > 0) for each in data]
                for note in (*item.notes, *(note for picture in task.pictures for note in picture.notes)):
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

    def _requests(self, ahead: ReadAhead[_Task]) -> Iterator[Request]:
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
            for request in requests:
                task.asked[_read_key(request.key)[1]].begin()
                yield request

    def _write(self, task: _Task) -> Iterator[Request]:
        """Yield an item's requests, those of each question in order; none if the item has failed."""
        if task.failure is not None:
            return
        number, self._taken = self._taken, self._taken + 1
        system = self._system if task.item.system is None else task.item.system
        requests: list[Request] = []
        try:
            sampling = replace(self._sampling, **task.item.sampling)
            if task.item.sampling.get("seed") is not None and not sampling.temperature:
                self.notes.add(task.item.path, "its seed has no effect at a temperature of 0")
            count = task.item.samples or self._samples
            if count > 1 and not sampling.temperature:
                self.notes.add(task.item.path, f"its {count} answers are equal at a temperature of 0")
            for name, prompt in task.prompts.items():
                constraint = sampling.constraint or self._constraints.get(name)
                asked = task.asked[name] = Asked(prompt, replace(sampling, constraint=constraint), count)
                talk = Conversation(_compose(task, prompt, constraint), system)
                requests += (
                    Request((number, name, index), talk, params) for index, params in enumerate(asked.samplings())
                )
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
        number, name, index = _read_key(outcome.key)
        task = self._tasks[number]
        task.open -= 1
        reply = outcome.reply
        if outcome.error is not None:
            task.failure = task.failure or _failure(outcome.error)
        elif reply is not None:
            asked = task.asked[name]
            asked.replies[index] = reply
            if len(asked.replies) == asked.due:
                try:
                    task.answers[name] = read_answer(asked, self._judge, self._least_probability)
                except DsvlError as error:  # the JSON is not complete
                    task.failure = task.failure or _failure(error)
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


def _read_key(key: Hashable) -> tuple[int, str, int]:
    """Return the number of the item, the name of the question and that of the sample."""
    return cast("tuple[int, str, int]", key)


def hash_pictures(data: Sequence[bytes]) -> str | None:
    """Return the hexadecimal SHA-256 of a picture, or of the concatenated digests of several; None without pictures."""
    digests = "".join(hashlib.sha256(each).hexdigest() for each in data)
    return hashlib.sha256(digests.encode()).hexdigest() if len(data) > 1 else digests or None


def _compose(task: _Task, prompt: str, constraint: Constraint | None) -> list[Message]:
    """Insert an item's pictures between its own texts, or at the image marks of the run's prompt.

    What a schema says about its fields comes last.

    Raises:
        DsvlError: the number of pictures does not match.
    """
    item, pictures = task.item, task.pictures
    if item.parts is None:
        return [Message("user", compose_parts(add_explanation(prompt, constraint), pictures))]
    following = iter(pictures)
    explanation = add_explanation("", constraint)
    parts = (*item.parts, f"\n{explanation}") if explanation else item.parts
    turns: list[tuple[Role, tuple[str | None, ...]]] = [*item.earlier, ("user", parts)]
    if sum(parts.count(None) for _, parts in turns) != len(pictures):
        raise ImageError(f"{item.path}: the number of pictures changed after the request was read", "run it again")
    return [Message(role, tuple(next(following) if part is None else part for part in parts)) for role, parts in turns]


def _failure(error: DsvlError) -> Failure:
    kind = UsageError if isinstance(error, UsageError) else type(error)  # readers of rows know no finer one
    return Failure(kind.__name__, error.message)


def _as_generator(outcomes: Iterator[Outcome]) -> Generator[Outcome, None, None]:
    """Wrap any iterator in a generator, which has `close`."""
    yield from outcomes

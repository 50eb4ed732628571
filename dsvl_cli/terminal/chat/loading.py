"""Loads a model in the background of a chat."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from dsvl_cli.engine.conversation import ChatModel
from dsvl_cli.engine.progress import Choice, Listener
from dsvl_cli.errors import DoesNotFit, DsvlError, is_out_of_memory

# Called with a model's name, a listener, and the loading options that differ from those of the command line.
LoadModel = Callable[..., ChatModel]

_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model, and how it is loaded.

    Attributes:
        name: as the user gave it.
        options: the loading options that differ from those of the command line, by name.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


class BackgroundModel:
    """Loads a model in a thread; its messages are queued until they can be shown.

    Another model is loaded beside the one in use, which is replaced only by a model that is ready. If the two do not
    fit into memory together, the old one is released first, and loaded again if the new one fails.

    Args:
        load: loads a model and reports to a listener; raises DsvlError.
        listener: receives notes and choices when `deliver` is called, so nothing is written over a prompt.
        changed: called from the loading thread when there is something new to show.

    Attributes:
        name: of the model requested last.
        progress: what is being transferred, with the bytes done and in total.
        used: the choice that led to the model in use.
    """

    def __init__(self, load: LoadModel, listener: Listener, changed: Callable[[], None] = lambda: None) -> None:
        self.changed = changed
        self.name = ""
        self.progress: tuple[str, int, int] | None = None
        self.used = ModelChoice("")
        self._wanted = self.used
        self._load = load
        self._listener = listener
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._began_at = 0.0
        self._done = threading.Event()
        self._lock = threading.Lock()  # of what `start` and the end of a loading both change
        self._thread: threading.Thread | None = None
        self._switch_seconds = sys.getswitchinterval()
        self._model: ChatModel | None = None
        self._error: DsvlError | None = None

    def start(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        """Load a model, after any current loading has ended; the one in use stays until then.

        Args:
            name: the model. If it is the one in use, the current loading is given up.
            options: see `ModelChoice`; None keeps those of the last request.
        """
        with self._lock:
            wanted = ModelChoice(name, self._wanted.options if options is None else options)
            if self.loading and wanted == self._wanted:
                return
            self._wanted = wanted
            self._began_at = time.monotonic()
            self.name = name
            self.progress = None
            self._error = None
            self._done = threading.Event()
            if self._model is not None and self._wanted == self.used:
                self._done.set()
                return
        self._thread = threading.Thread(target=self._run, args=(self._wanted, self._done, self._thread), daemon=True)
        self._thread.start()

    @property
    def ready(self) -> ChatModel | None:
        """The model in use: the last one that was loaded."""
        return self._model

    def take_error(self) -> DsvlError | None:
        """Return the error of a failed loading once; None after that."""
        error, self._error = self._error, None
        return error

    @property
    def loading(self) -> bool:
        """Whether loading is still in progress."""
        return not self._done.is_set()

    @property
    def seconds(self) -> float:
        """The time since the last `start`."""
        return time.monotonic() - self._began_at

    @property
    def wanted(self) -> ModelChoice:
        """The model requested last, which is or will be in use unless it fails."""
        return self._wanted

    @property
    def has_news(self) -> bool:
        """Whether `deliver` or `take_error` has something to show; also true when a model has just been loaded."""
        return not self._inbox.empty() or self._error is not None

    def wait(self, seconds: float) -> bool:
        """Wait for loading to end, at most `seconds`; return whether it has."""
        return self._done.wait(seconds)

    def deliver(self) -> None:
        """Show queued messages. Call it when nothing else is being written."""
        while True:
            try:
                self._inbox.get_nowait()()
            except Empty:
                return

    def post(self, show: Callable[[], None]) -> None:
        """Queue something to show for the next `deliver`."""
        self._inbox.put(show)
        self.changed()

    def _run(self, choice: ModelChoice, done: threading.Event, previous: threading.Thread | None) -> None:
        if previous is not None:
            previous.join()
        model, error = None, None
        try:
            _share_the_interpreter(collect=previous is not None)
            model = self._load_beside(choice, done)
        except DsvlError as exc:
            error = exc
        except BaseException as exc:  # the chat reports it and continues
            error = DsvlError(f"{choice.name} cannot be loaded: {type(exc).__name__}: {exc}")
            error.__cause__ = exc
        finally:
            sys.setswitchinterval(self._switch_seconds)
            gc.freeze()  # otherwise the first collection would traverse all the new objects
            gc.enable()
        with self._lock:
            if done is self._done:  # otherwise another model has been requested since
                if model is not None:
                    self._model, self.used = model, choice
                elif error is not None and self._model is not None:
                    stays = f"{self._model.name} stays in use"
                    error.hint = f"{error.hint}; {stays}" if error.hint else stays
                    self._wanted, self.name = self.used, self.used.name
                self._error, self.progress = error, None
        done.set()
        self.post(lambda: None)

    def _load_beside(self, choice: ModelChoice, done: threading.Event) -> ChatModel:
        """Load a model while the old one stays, or after releasing that one if nothing else helps."""
        try:
            return self._call(choice, done)
        except Exception as exc:
            old = self._model
            if old is None or done is not self._done or not _may_fit_without(old, exc):
                raise
            name, before = old.name, self.used
            del old
        self.post(
            lambda: self._listener.note(
                f"{choice.name} and {name} do not fit into memory together: {name} is released first"
            )
        )
        self._model = None
        gc.unfreeze()
        gc.collect()
        try:
            return self._call(choice, done)
        except BaseException:
            self._model = self._call(before, done)
            raise

    def _call(self, choice: ModelChoice, done: threading.Event) -> ChatModel:
        return self._load(choice.name, _Postbox(self, self._listener, done), **choice.options)

    def is_wanted(self, done: threading.Event) -> bool:
        """Whether a loading has not been superseded by another request."""
        return done is self._done


def _may_fit_without(old: ChatModel, exc: Exception) -> bool:
    """Whether an error came from a lack of memory that releasing a model may remedy."""
    if isinstance(exc, DoesNotFit):
        return exc.lacking_bytes <= old.held_bytes
    return is_out_of_memory(exc) and old.held_bytes > 0


def _share_the_interpreter(*, collect: bool) -> None:
    """Keep key presses responsive (0.1 s) while torch is imported, which is seconds of pure Python code.

    With the default switch interval of 5 ms, handling a key would have to wait many times; and a garbage collection
    traverses all objects created by the import, which takes 0.1 to 0.2 s on a slow machine.
    """
    if collect:  # a model was loaded before
        gc.unfreeze()
        gc.collect()
    gc.disable()
    sys.setswitchinterval(_SWITCH_SECONDS)


class _Postbox:
    """The listener of the loading thread: progress is stored, everything else is queued."""

    def __init__(self, owner: BackgroundModel, listener: Listener, done: threading.Event) -> None:
        self._owner = owner
        self._listener = listener
        self._done = done

    def note(self, text: str) -> None:
        self._owner.post(lambda: self._listener.note(text))

    def choice(self, choice: Choice) -> None:
        self._owner.post(lambda: self._listener.choice(choice))

    def progress(self, what: str, done: int, total: int) -> None:
        if self._owner.is_wanted(self._done):
            self._owner.progress = (what, done, total) if done < total else None
            self._owner.changed()

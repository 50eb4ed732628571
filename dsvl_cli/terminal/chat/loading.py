"""Loads a model in the background of a chat."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from dsvl_cli.engine.conversation import ChatModel
from dsvl_cli.engine.progress import Choice, Listener
from dsvl_cli.errors import DsvlError

LoadModel = Callable[[str, Listener], ChatModel]

_SWITCH_SECONDS = 0.0005


class BackgroundModel:
    """Loads a model in a thread; its messages are queued until they can be shown.

    Args:
        load: loads a model by name and reports to a listener; raises DsvlError.
        listener: receives notes and choices when `deliver` is called, so nothing is written over a prompt.
        changed: called from the loading thread when there is something new to show.
    """

    def __init__(self, load: LoadModel, listener: Listener, changed: Callable[[], None] = lambda: None) -> None:
        self.changed = changed
        self.name = ""
        self.progress: tuple[str, int, int] | None = None
        self._load = load
        self._listener = listener
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._switch_seconds = sys.getswitchinterval()
        self._model: ChatModel | None = None
        self._error: DsvlError | None = None

    def start(self, name: str) -> None:
        """Load a model, after any current loading has ended; the old one is freed first, to fit into memory."""
        self.name = name
        self.progress = None
        self._model = self._error = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(name, self._done, self._thread), daemon=True)
        self._thread.start()

    @property
    def ready(self) -> ChatModel | None:
        """The model, once it is loaded."""
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

    def _run(self, name: str, done: threading.Event, previous: threading.Thread | None) -> None:
        if previous is not None:
            previous.join()
        model, error = None, None
        try:
            _share_the_interpreter(collect=previous is not None)
            model = self._load(name, _Postbox(self, self._listener))
        except DsvlError as exc:
            error = exc
        except BaseException as exc:  # the chat reports it and continues
            error = DsvlError(f"{name} cannot be loaded: {type(exc).__name__}: {exc}")
            error.__cause__ = exc
        finally:
            sys.setswitchinterval(self._switch_seconds)
            gc.freeze()  # otherwise the first collection would traverse all the new objects
            gc.enable()
        if done is self._done:  # otherwise another model has been requested since
            self._model, self._error, self.progress = model, error, None
        done.set()
        self.post(lambda: None)


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

    def __init__(self, owner: BackgroundModel, listener: Listener) -> None:
        self._owner = owner
        self._listener = listener

    def note(self, text: str) -> None:
        self._owner.post(lambda: self._listener.note(text))

    def choice(self, choice: Choice) -> None:
        self._owner.post(lambda: self._listener.choice(choice))

    def progress(self, what: str, done: int, total: int) -> None:
        self._owner.progress = (what, done, total) if done < total else None
        self._owner.changed()

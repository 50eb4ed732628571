"""A model that loads behind the prompt."""

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
    """Loads a model in a thread; what it has to say waits until there is room to show it.

    Args:
        load: loads the model of a name and reports to a listener; raises DsvlError.
        listener: gets notes and choices when `deliver` is called, so that nothing is written across a prompt.
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
        """Begin to load, after what is loading now; the old model goes first, for there may be no memory for two."""
        self.name = name
        self.progress = None
        self._model = self._error = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(name, self._done, self._thread), daemon=True)
        self._thread.start()

    @property
    def ready(self) -> ChatModel | None:
        """The model, once it is there."""
        return self._model

    def take_error(self) -> DsvlError | None:
        """Why there is no model: told once, None from then on."""
        error, self._error = self._error, None
        return error

    @property
    def loading(self) -> bool:
        """Whether the outcome is still open."""
        return not self._done.is_set()

    @property
    def has_news(self) -> bool:
        """Whether `deliver` or `take_error` has something to show; so it is, too, when a model has just come."""
        return not self._inbox.empty() or self._error is not None

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether the outcome is known."""
        return self._done.wait(seconds)

    def deliver(self) -> None:
        """Show what has come up. Call it where nothing else is being written."""
        while True:
            try:
                self._inbox.get_nowait()()
            except Empty:
                return

    def post(self, show: Callable[[], None]) -> None:
        """Keep something to show for the next `deliver`."""
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
        except BaseException as exc:  # whatever it is, the chat goes on and says it
            error = DsvlError(f"{name} cannot be loaded: {type(exc).__name__}: {exc}")
            error.__cause__ = exc
        finally:
            sys.setswitchinterval(self._switch_seconds)
            gc.freeze()  # else the first collection would walk through all that came
            gc.enable()
        if done is self._done:  # else another model was asked for meanwhile
            self._model, self._error, self.progress = model, error, None
        done.set()
        self.post(lambda: None)


def _share_the_interpreter(*, collect: bool) -> None:
    """Let a key be echoed within 0.1 s while torch is imported, which is seconds of nothing but Python code.

    With the usual 5 ms a thread keeps the interpreter, a key would wait again and again; and a collection walks through
    all the objects that an import makes, 0.1 to 0.2 s at a time on a slow machine.
    """
    if collect:  # there was a model before
        gc.unfreeze()
        gc.collect()
    gc.disable()
    sys.setswitchinterval(_SWITCH_SECONDS)


class _Postbox:
    """The listener of the loading thread: progress is kept to be looked at, the rest waits in the inbox."""

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

"""A chat: the conversation, the model, and where it is stored. Independent of keys and input lines."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.conversation import (
    ChatModel,
    Chunk,
    Conversation,
    Message,
    Picture,
    Reply,
    Stats,
    compose_parts,
)
from dsvl_cli.engine.options import IMAGE_MARK, SamplingParams, draw_seed
from dsvl_cli.errors import ContextOverflow, DsvlError, SomeFailed, UsageError
from dsvl_cli.terminal.chat.attachments import Found, find_pictures
from dsvl_cli.terminal.chat.context import Context
from dsvl_cli.terminal.chat.dialogue import Dialogue, answered
from dsvl_cli.terminal.chat.interrupts import Interrupts
from dsvl_cli.terminal.chat.restoring import (
    CommandLine,
    Restored,
    last_exchange,
    restore,
    values_to_keep,
)
from dsvl_cli.terminal.chat.services import Services, TurnRecord
from dsvl_cli.terminal.chat.turn import explained, show_answer
from dsvl_cli.terminal.progress import ConsoleListener
from dsvl_cli.terminal.waiting import CTRL_C_STOPS, ReadingWait, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dsvl_cli.terminal.chat.conversation_store import StoredConversation
    from dsvl_cli.terminal.chat.loading import BackgroundModel
    from dsvl_cli.terminal.chat.settings import ChatSettings
    from dsvl_cli.terminal.console import Console

_RETRY_TEMPERATURE = 0.7
_POLL_SECONDS = 0.1


class Chat:
    """Everything that an input line or a command can do.

    Args:
        console: for messages other than answers.
        loading: the model, which may still be loading.
        services: pictures, storage, export, answers.
        settings: the initial settings, to which `/set NAME default` returns.
        line: what the chat was started with; its system prompt is that of new conversations.
        scripted: there is no interactive user, and Ctrl-C ends the program.

    Attributes:
        ctrl_c: determines where Ctrl-C interrupts.
        draft: the initial text of the next input line.
        leaving: set by `/exit`.
        status_bar: returns the line below the prompt, at most so many columns wide, if there is one.
        clear_screen: clears the screen, if there is one.
        lend_terminal: a context in which another program may use the terminal.
        context: how full the model's context is.
        stats: of the last answer.
    """

    def __init__(
        self,
        console: Console,
        loading: BackgroundModel,
        services: Services,
        settings: ChatSettings,
        *,
        line: CommandLine | None = None,
        scripted: bool = False,
    ) -> None:
        self.console = console
        self.loading = loading
        self.services = services
        self.settings = settings
        self.defaults = settings
        self.scripted = scripted
        self.line = line or CommandLine()
        self.dialogue = Dialogue(Conversation(system=self.line.system))
        self.context = Context(console)
        self.session_id: str | None = None
        self.session_name: str | None = None
        self.ctrl_c = Interrupts()
        self.draft = ""
        self.leaving = False
        self.status_bar: Callable[[int], str] | None = None
        self.clear_screen: Callable[[], None] = lambda: None
        self.lend_terminal: Callable[[], AbstractContextManager[None]] = nullcontext
        self.stats: Stats | None = None
        self._warned_of_saving = ""
        self._unsaved = False

    # Messages

    def tell(self, *lines: str) -> None:
        """Show lines on stderr."""
        for line in lines:
            self.console.say(line)

    def advise(self, text: str) -> None:
        """Tell the user what to do next; not in scripts."""
        if not self.scripted:
            self.console.status(text)

    # The model

    def model(self) -> ChatModel:
        """Return the model, waiting for it if it is loading.

        Raises:
            DsvlError: it could not be loaded.
            KeyboardInterrupt: Ctrl-C while waiting.
        """
        if self.loading.loading:
            self._wait_for_model()
        self.loading.deliver()
        error, model = self.loading.take_error(), self.loading.ready
        if error is not None or model is None:
            raise error or DsvlError("no model is loaded", "load one with /model NAME")
        return model

    def _wait_for_model(self) -> None:
        self.advise(f"waiting for {self.loading.name} to load; Ctrl-C stops waiting")
        with self.console.working(Wait(f"loading {self.loading.name}", CTRL_C_STOPS, below=self.status_bar)):
            self.follow_loading()

    def follow_loading(self) -> None:
        """Show what a loading model reports, until it is ready or has failed.

        Raises:
            KeyboardInterrupt: Ctrl-C; the loading continues.
        """
        listener = ConsoleListener(self.console)
        while self.loading.loading:
            with self.ctrl_c.listening():
                self.loading.wait(_POLL_SECONDS)
            self.loading.deliver()
            if self.loading.progress is not None:
                listener.progress(*self.loading.progress)

    @property
    def model_name(self) -> str:
        """The model's name as the user gave it, loaded or not."""
        return self.loading.ready.name if self.loading.ready else self.loading.name

    @property
    def is_measured(self) -> bool:
        """Whether the context was measured by the model in use."""
        return self.context.is_measured_by(self.loading.ready)

    def measure(self) -> None:
        """Count the tokens in use if the model is loaded; warn when the context is nearly full."""
        self.context.measure(self.dialogue, self.loading.ready, self.settings)

    # Pictures

    def attach(self, pictures: Iterable[Picture]) -> None:
        """Attach pictures to the next message."""
        for picture in pictures:
            self.dialogue.attached.append(picture)
            number = self.dialogue.pictures()[-1].number
            self.tell(f"[{number}] {picture.name} ({picture.width}x{picture.height})")
            for note in picture.notes:
                self.tell(f"    {note}")

    def add_images(self, arguments: Sequence[str]) -> None:
        """Attach pictures from paths, URLs and globs, skipping those that fail.

        Raises:
            DsvlError: a pattern matches nothing.
            SomeFailed: some failed, and their errors have been shown.
        """
        failed = False
        for source in self.services.sources.expand(arguments):
            try:
                with self._opening_pictures():
                    picture = self.services.sources.read(source)
                self.attach([picture])
            except DsvlError as exc:
                self.console.error(exc)
                failed = True
        if failed:
            raise SomeFailed("some pictures could not be attached")

    @contextmanager
    def _opening_pictures(self) -> Iterator[None]:
        """Show that pictures are being opened, which Ctrl-C stops: a download may be slow."""
        wait = Wait("opening the picture", CTRL_C_STOPS, below=self.status_bar)
        with self.console.working(wait), self.ctrl_c.listening():
            yield

    # Turns

    def send(self, line: str, *, as_is: bool = False) -> None:
        """Send a line, with the pictures that it names and those attached before.

        If there is no answer, the attached pictures are the same as before.

        Args:
            line: the message.
            as_is: look for no names of pictures.

        Raises:
            DsvlError: a picture cannot be used, and the line becomes the draft; or the model failed.
            KeyboardInterrupt: Ctrl-C before the answer began; the line becomes the draft.
        """
        found = Found(line, ()) if as_is else self._find_pictures(line)
        attached, turns = list(self.dialogue.attached), self.dialogue.turns
        self.attach(found.pictures)
        if not found.text:
            self.advise("attached to the next message")
            return
        try:
            marks = IMAGE_MARK * len(attached) if found.marked and IMAGE_MARK not in line else ""
            text = marks + found.text
            question = self.dialogue.question(text)
            self._answer([*self.dialogue.messages, question], self.settings.sampling)
        except KeyboardInterrupt:
            self.draft = f"/text {line}" if as_is else line
            raise
        finally:
            self.dialogue.attached = [] if self.dialogue.turns > turns else attached

    def _find_pictures(self, line: str) -> Found:
        try:
            with self._opening_pictures():
                return find_pictures(line, self.services.sources)
        except (DsvlError, KeyboardInterrupt):
            self.draft = "" if self.scripted else line
            raise

    def go_on(self) -> None:
        """Continue an answer that was cut off.

        Raises:
            UsageError: there is none.
        """
        messages = self.dialogue.messages
        if not messages:
            raise UsageError("there is no message yet")
        if messages[-1].role == "assistant" and messages[-1].finish_reason == "stop":
            raise UsageError("the last answer is complete", "/retry generates another one")
        if messages[-1].role == "assistant" and self.settings.sampling.constraint is not None:
            raise UsageError("JSON cannot be continued", "/set max_new_tokens N allows more, /retry asks again")
        self._answer(list(messages), self.settings.sampling)

    def retry(self) -> None:
        """Answer the last message again with a different seed.

        Raises:
            UsageError: there is no message yet.
        """
        index = self.dialogue.last_question()
        sampling = replace(self.settings.sampling, seed=draw_seed())
        if sampling.temperature == 0.0:
            sampling = replace(sampling, temperature=_RETRY_TEMPERATURE)
            self.advise(f"using temperature {_RETRY_TEMPERATURE} once: at 0 the answer would be the same")
        self._answer(self.dialogue.messages[: index + 1], sampling)

    def ask_instead(self, text: str) -> None:
        """Replace the text of the last message, keeping its pictures, and send it again.

        Raises:
            UsageError: there is no message yet, or the `<image>` marks do not match the pictures.
        """
        index = self.dialogue.last_question()
        pictures = self.dialogue.messages[index].pictures
        question = Message("user", compose_parts(text, pictures))
        self._answer([*self.dialogue.messages[:index], question], self.settings.sampling)

    def _answer(self, messages: Sequence[Message], sampling: SamplingParams) -> None:
        """Generate the answer to the last message, or its continuation, and make these messages the conversation.

        Raises:
            DsvlError: the model failed; a partial answer is kept.
            KeyboardInterrupt: Ctrl-C before the answer began, or in a script.
        """
        model = self.model()
        conversation = Conversation(list(messages), self.dialogue.conversation.system)
        sent = self.context.fit(conversation, model, self.settings)
        received: list[Chunk] = []
        complete = interrupted = False
        try:
            reading = ReadingWait("reading", CTRL_C_STOPS, "reading", self.status_bar)
            chunks = explained(model.stream(sent, sampling, reading.update))
            interrupted = show_answer(chunks, self.services.open_answer, self.console, self.ctrl_c, received, reading)
            complete = not interrupted
        except ContextOverflow as exc:
            ways = "use /drop N or /undo, or leave out the oldest exchanges with /set overflow drop-oldest (--overflow)"
            if len(messages) == 1:
                ways = "shorten it, or use fewer pictures"
            raise ContextOverflow(exc.prompt_tokens, exc.context_length, ways) from exc
        finally:
            reply = Reply.of(received)
            if complete or reply.text:
                self._keep_turn(answered(messages, reply, model.fingerprint), reply, model)
        if interrupted and (self.scripted or not reply.text):
            raise KeyboardInterrupt

    def _keep_turn(self, messages: list[Message], reply: Reply, model: ChatModel) -> None:
        self.dialogue.messages[:] = messages
        self._unsaved = True
        self.stats = reply.stats
        self.save()
        question = messages[self.dialogue.last_question()]
        self.services.on_turn(TurnRecord(question, messages[-1], model.name, reply.stats, reply.notice))
        if reply.notice:
            self.tell(reply.notice)
        if reply.finish_reason == "length":
            self.advise("(cut off) /continue resumes the answer")
        elif reply.finish_reason == "interrupted":
            self.advise("/continue resumes the answer")

    # Storage

    def save(self) -> None:
        """Save the conversation; show a warning if that fails."""
        store = self.services.store
        try:
            wanted = self.session_id or store.create()
            self.session_id = store.save(wanted, self.dialogue.conversation, self.model_name, self._values_to_keep())
            self._warned_of_saving = ""
            self._unsaved = False
            if self.session_id != wanted:
                self.session_name = None
                self.tell(f"another chat has continued this conversation; this one is saved as {self.session_id}")
        except DsvlError as exc:
            if exc.message != self._warned_of_saving:
                self.console.warn(f"the conversation is not saved: {exc.message}")
            self._warned_of_saving = exc.message

    def _values_to_keep(self) -> dict[str, Any]:
        name = self.model_name
        with suppress(DsvlError):  # its folder was moved since
            name = self.services.catalogue.refer(name)
        return values_to_keep(self.loading.used, self.settings, self.defaults, self.line, name)

    def save_at_last(self) -> None:
        """Save a turn that could not be saved earlier because of an error or a signal."""
        if self._unsaved:
            self.save()

    @property
    def is_kept(self) -> bool:
        """Whether the conversation is saved and can be continued later."""
        return bool(self.session_id and self.dialogue.messages and not self._warned_of_saving)

    def save_if_begun(self) -> None:
        """Save a change other than a turn, unless there is nothing to save yet."""
        if self.dialogue.messages or self.session_id is not None:
            self.save()

    def open(self, stored: StoredConversation) -> Restored:
        """Continue a stored conversation with its settings; attached pictures and the model in use stay."""
        restored = restore(stored, self.line, self.defaults, self.services.catalogue)
        self.settings = restored.settings
        self.dialogue.conversation = stored.conversation
        self.dialogue.conversation.system = restored.system
        self.session_id, self.session_name = stored.id, stored.name
        self.stats = None
        self.context.begin_anew()
        return restored

    def show_restored(self, restored: Restored) -> None:
        """Say what came back with a conversation, and show its last exchange; not in scripts."""
        if restored.summary:
            self.advise(restored.summary)
        if not self.scripted:
            for line in last_exchange(self.dialogue.messages, self.console.status_width):
                self.console.recall(line)

    def begin_anew(self) -> None:
        """Start a new conversation with the same system prompt and model."""
        self.dialogue = Dialogue(Conversation(system=self.dialogue.conversation.system))
        self.session_id = self.session_name = None
        self.stats = None
        self.context.begin_anew()

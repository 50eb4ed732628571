"""A chat: the conversation, the model that answers, and where it is kept. Knows no keys and no lines."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
from dsvl_cli.terminal.chat.attachments import PictureSources, find_pictures
from dsvl_cli.terminal.chat.dialogue import Dialogue, answered, leave_out_oldest
from dsvl_cli.terminal.chat.interrupts import Interrupts
from dsvl_cli.terminal.chat.turn import show_answer
from dsvl_cli.terminal.progress import ConsoleListener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from dsvl_cli.terminal.chat.conversation_store import ConversationKeeper, KeptConversation
    from dsvl_cli.terminal.chat.loading import BackgroundModel
    from dsvl_cli.terminal.console import Console
    from dsvl_cli.terminal.plain import AnswerStream
from dsvl_cli.terminal.chat.settings import ChatSettings

_NEARLY_FULL = 0.9
_RETRY_TEMPERATURE = 0.7
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A turn as a script wants it.

    Attributes:
        question: what was asked.
        answer: the whole message, also when this turn only went on with it.
        model: the model's name.
    """

    question: Message
    answer: Message
    model: str
    stats: Stats | None
    notice: str | None


@dataclass(frozen=True, slots=True)
class Services:
    """What a chat needs from outside the terminal.

    Attributes:
        sources: where pictures come from.
        keeper: where conversations are kept.
        export: writes a conversation, with the model's name, to a new file, its pictures in it or beside it; raises
            DsvlError.
        open_answer: begins to show an answer.
        on_turn: is told every turn that ended.
        models: names that `/model` offers.
    """

    sources: PictureSources
    keeper: ConversationKeeper
    export: Callable[[Conversation, str, Path, bool], None]
    open_answer: Callable[[], AnswerStream]
    on_turn: Callable[[TurnRecord], None] = lambda _: None
    models: tuple[str, ...] = ()


class Chat:
    """Everything that a line or a command can do.

    Args:
        console: for what is said beside the answers.
        loading: the model, which may still be loading.
        services: pictures, keeper, export, answers.
        settings: what the chat begins with, and what `/set NAME default` goes back to.
        system: the system text that a new conversation begins with; None for the checkpoint's own.
        scripted: there is nobody to ask or to advise: Ctrl-C ends the program.

    Attributes:
        ctrl_c: where Ctrl-C is listened to.
        draft: text that should stand in the line when it is edited next.
        leaving: set by `/exit`.
        clear_screen: clears the screen, where there is one.
        lend_terminal: within it, another program may use the terminal.
        used_tokens: the length of the prompt so far with what is staged; None while it is unknown.
        stats: of the last answer.
    """

    def __init__(
        self,
        console: Console,
        loading: BackgroundModel,
        services: Services,
        settings: ChatSettings,
        *,
        system: str | None = None,
        scripted: bool = False,
    ) -> None:
        self.console = console
        self.loading = loading
        self.services = services
        self.settings = settings
        self.defaults = settings
        self.scripted = scripted
        self.dialogue = Dialogue(Conversation(system=system))
        self.session_id: str | None = None
        self.ctrl_c = Interrupts()
        self.draft = ""
        self.leaving = False
        self.clear_screen: Callable[[], None] = lambda: None
        self.lend_terminal: Callable[[], AbstractContextManager[None]] = nullcontext
        self.used_tokens: int | None = None
        self.stats: Stats | None = None
        self._warned_of_saving = ""
        self._unsaved = False
        self._warned_of_context = False

    # What is said beside the answers

    def tell(self, *lines: str) -> None:
        """Say lines on stderr."""
        for line in lines:
            self.console.say(line)

    def advise(self, text: str) -> None:
        """Say what the user can do next; scripts need no advice."""
        if not self.scripted:
            self.console.status(text)

    # The model

    def model(self) -> ChatModel:
        """Return the model, after waiting for it where it is loading.

        Raises:
            DsvlError: it could not be loaded.
            KeyboardInterrupt: the waiting was given up.
        """
        if self.loading.loading:
            self.advise(f"waiting for {self.loading.name} to load; Ctrl-C stops waiting")
            listener = ConsoleListener(self.console)
            try:
                while self.loading.loading:
                    with self.ctrl_c.listening():
                        self.loading.wait(_POLL_SECONDS)
                    self.loading.deliver()
                    if self.loading.progress is not None:
                        listener.progress(*self.loading.progress)
            finally:
                self.console.clear_redrawn_line()
        self.loading.deliver()
        model = self.loading.ready
        if model is None:
            raise self.loading.take_error() or DsvlError("no model is loaded", "/model NAME loads one")
        return model

    @property
    def model_name(self) -> str:
        """What the user calls the model, loaded or not."""
        return self.loading.ready.name if self.loading.ready else self.loading.name

    def measure(self) -> None:
        """Count the tokens that are in use, if the model is there to do it; warn when the context is nearly full."""
        self.used_tokens = None
        model = self.loading.ready
        if model is None:
            return
        try:
            self.used_tokens = model.count_tokens(self.dialogue.conversation)
        except DsvlError:  # a picture that cannot be decoded is told when it is sent
            return
        self.used_tokens += len(self.dialogue.staged) * model.image_tokens()
        nearly_full = self.used_tokens >= _NEARLY_FULL * model.context_length
        if nearly_full and not self._warned_of_context:
            percent = 100 * self.used_tokens // model.context_length
            self.console.warn(f"{percent} % of the context is used: /drop N, /undo or /new make room")
        self._warned_of_context = nearly_full

    # Pictures

    def stage(self, pictures: Iterable[Picture]) -> None:
        """Let pictures wait for the next message."""
        for picture in pictures:
            self.dialogue.staged.append(picture)
            number = len(self.dialogue.pictures())
            self.tell(f"[{number}] {picture.name} ({picture.width}x{picture.height})")
            for note in picture.notes:
                self.tell(f"    {note}")

    def add_images(self, arguments: Sequence[str]) -> None:
        """Stage the pictures of paths, addresses and globs; one that fails does not hinder the others.

        Raises:
            DsvlError: a pattern matches nothing.
            SomeFailed: some failed, and it was told.
        """
        failed = False
        for source in self.services.sources.expand(arguments):
            try:
                with self.ctrl_c.listening():  # an address may be slow
                    picture = self.services.sources.read(source)
                self.stage([picture])
            except DsvlError as exc:
                self.console.error(exc)
                failed = True
        if failed:
            raise SomeFailed("some pictures cannot be used")

    # Turns

    def send(self, line: str) -> None:
        """Ask what the line says, with the pictures that it names and those that are staged.

        Where nothing comes of it, the same pictures are staged as before.

        Raises:
            DsvlError: the pictures or the model do not allow it.
            KeyboardInterrupt: given up before anything was said; the line is the draft then.
        """
        found = find_pictures(line, self.services.sources)
        staged, turns = list(self.dialogue.staged), self.dialogue.turns
        self.stage(found.pictures)
        if not found.text:
            self.advise("staged for the next message")
            return
        try:
            text = IMAGE_MARK * len(staged) + found.text if found.marked else found.text
            question = self.dialogue.question(text)
            self._answer([*self.dialogue.messages, question], self.settings.sampling)
        except KeyboardInterrupt:
            self.draft = line
            raise
        finally:
            self.dialogue.staged = [] if self.dialogue.turns > turns else staged

    def go_on(self) -> None:
        """Go on with an answer that was cut.

        Raises:
            UsageError: there is none.
        """
        messages = self.dialogue.messages
        if not messages:
            raise UsageError("nothing was asked yet")
        if messages[-1].role == "assistant" and messages[-1].finish_reason == "stop":
            raise UsageError("the last answer is complete", "/retry draws another")
        self._answer(list(messages), self.settings.sampling)

    def retry(self) -> None:
        """Answer the last question once more, with another seed.

        Raises:
            UsageError: nothing was asked yet.
        """
        index = self.dialogue.last_question()
        sampling = replace(self.settings.sampling, seed=draw_seed())
        if sampling.temperature == 0.0:
            sampling = replace(sampling, temperature=_RETRY_TEMPERATURE)
            self.advise(f"at temperature 0 the answer would be the same: {_RETRY_TEMPERATURE} for this one")
        self._answer(self.dialogue.messages[: index + 1], sampling)

    def ask_instead(self, text: str) -> None:
        """Ask the last question once more in other words, with the same pictures.

        Raises:
            UsageError: nothing was asked yet, or the `<image>` marks do not match the pictures.
        """
        index = self.dialogue.last_question()
        pictures = self.dialogue.messages[index].pictures
        question = Message("user", compose_parts(text, pictures))
        self._answer([*self.dialogue.messages[:index], question], self.settings.sampling)

    def _answer(self, messages: Sequence[Message], sampling: SamplingParams) -> None:
        """Have the last of the messages answered, or gone on with; the conversation is then these messages.

        Raises:
            DsvlError: the model could not; what it said until then stays.
            KeyboardInterrupt: stopped before anything was said, or by Ctrl-C in a script.
        """
        model = self.model()
        sent = self._fitting(Conversation(list(messages), self.dialogue.conversation.system), model)
        received: list[Chunk] = []
        complete = interrupted = False
        try:
            chunks = model.stream(sent, sampling)
            interrupted = show_answer(chunks, self.services.open_answer, self.console, self.ctrl_c, received)
            complete = not interrupted
        except ContextOverflow as exc:
            ways = "/drop N or /undo make room; /set overflow drop-oldest (--overflow) leaves out the oldest exchanges"
            raise ContextOverflow(exc.prompt_tokens, exc.context_length, ways) from exc
        finally:
            reply = Reply.of(received)
            if complete or reply.text:
                self._keep_turn(answered(messages, reply, model.fingerprint), reply, model)
        if interrupted and (self.scripted or not reply.text):
            raise KeyboardInterrupt

    def _fitting(self, conversation: Conversation, model: ChatModel) -> Conversation:
        if self.settings.overflow == "error":
            return conversation
        shorter, left_out = leave_out_oldest(conversation, model, self.settings.sampling.max_new_tokens)
        if left_out:
            exchanges = "exchange is" if left_out == 1 else f"{left_out} exchanges are"
            self.tell(f"the context is full: the oldest {exchanges} left out of what the model reads")
        return shorter

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
            self.advise("(cut) /continue goes on")
        elif reply.finish_reason == "interrupted":
            self.advise("/continue goes on")

    # Keeping

    def save(self) -> None:
        """Save the conversation; where that fails, warn and go on."""
        keeper = self.services.keeper
        try:
            wanted = self.session_id or keeper.create()
            self.session_id = keeper.save(wanted, self.dialogue.conversation, self.model_name)
            self._warned_of_saving = ""
            self._unsaved = False
            if self.session_id != wanted:
                self.tell(f"another chat went on with this conversation; this one is kept as {self.session_id}")
        except DsvlError as exc:
            if exc.message != self._warned_of_saving:
                self.console.warn(f"the conversation is not saved: {exc.message}")
            self._warned_of_saving = exc.message

    def save_at_last(self) -> None:
        """Save a turn whose saving failed, or was cut short by a signal."""
        if self._unsaved:
            self.save()

    @property
    def is_kept(self) -> bool:
        """Whether there is something to go on with another time."""
        return bool(self.session_id and self.dialogue.messages and not self._warned_of_saving)

    def save_if_begun(self) -> None:
        """Save a change beside the turns, unless there is nothing to save yet."""
        if self.dialogue.messages or self.session_id is not None:
            self.save()

    def open(self, kept: KeptConversation) -> None:
        """Go on with a kept conversation; what is staged stays staged."""
        self.dialogue.conversation = kept.conversation
        self.session_id = kept.id
        self.stats = None

    def begin_anew(self) -> None:
        """Begin another conversation, with the same system text and model."""
        self.dialogue = Dialogue(Conversation(system=self.dialogue.conversation.system))
        self.session_id = None
        self.stats = None

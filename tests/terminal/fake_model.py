"""A model that says what a test wants, and a chat around it. No torch."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from dsvl_cli.engine.conversation import Chunk, Conversation, FinishReason, Picture, Stats
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.progress import Listener, OnReading, Reading, Silence
from dsvl_cli.errors import ContextOverflow, DsvlError, ImageError, UsageError
from dsvl_cli.terminal.chat.attachments import PictureSources
from dsvl_cli.terminal.chat.chat import Chat
from dsvl_cli.terminal.chat.conversation_store import ConversationStore, Export
from dsvl_cli.terminal.chat.loading import BackgroundModel
from dsvl_cli.terminal.chat.restoring import AnyModel
from dsvl_cli.terminal.chat.services import Services
from dsvl_cli.terminal.chat.settings import ChatSettings
from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.plain import PlainStream

IMAGE_TOKENS = 10
_PIECE = re.compile(r"\s*\S+|\s+")


@dataclass
class FakeModel:
    """Says the queued answers, one after the other; without one it says what it was asked.

    Every word is a token; a text's ids depend on the text alone, so that equal ids mean equal texts.

    Attributes:
        answers: texts to say, or errors to raise instead.
        readings: what is told while the prompt is read, every `read_delay` seconds.
        before_chunk: called with the number of each chunk before it is given away.
        asked: the conversations that were answered, with their settings.
        closed: how many answers were ended before their end.
    """

    answers: list[str | Exception] = field(default_factory=list)
    name: str = "fake"
    fingerprint: str = "fake-1"
    context_length: int = 1000
    held_bytes: int = 0
    delay: float = 0.0
    readings: Sequence[Reading] = ()
    read_delay: float = 0.0
    before_chunk: Callable[[int], None] = lambda number: None
    asked: list[tuple[Conversation, SamplingParams]] = field(default_factory=list)
    closed: int = 0

    def stream(
        self, conversation: Conversation, sampling: SamplingParams, on_reading: OnReading | None = None
    ) -> Iterator[Chunk]:
        self.asked.append((Conversation(list(conversation.messages), conversation.system), sampling))
        tokens = self.count_tokens(conversation)
        if tokens >= self.context_length:
            raise ContextOverflow(tokens, self.context_length)
        for reading in self.readings:
            time.sleep(self.read_delay)
            if on_reading is not None:
                on_reading(reading)
        answer = self.answers.pop(0) if self.answers else f"You said: {conversation.messages[-1].text}"
        if isinstance(answer, Exception):
            raise answer
        pieces = _PIECE.findall(answer)
        said = pieces[: sampling.max_new_tokens]
        reason: FinishReason = "stop" if len(said) == len(pieces) else "length"
        try:
            for number, piece in enumerate(said):
                time.sleep(self.delay)
                self.before_chunk(number)
                yield Chunk(piece, (token_id(piece),))
        except GeneratorExit:
            self.closed += 1
            raise
        yield Chunk("", (), reason, Stats(tokens, tokens // 2, 0.5, len(said), 1.0, 2_000_000))

    def count_tokens(self, conversation: Conversation) -> int:
        words = sum(len(_PIECE.findall(message.text)) for message in conversation.messages)
        words += len(_PIECE.findall(conversation.system or ""))
        return words + IMAGE_TOKENS * len(conversation.pictures)

    def image_tokens(self) -> int:
        return IMAGE_TOKENS

    def view(self, picture: Picture) -> Image.Image:
        return Image.open(io.BytesIO(picture.data)).convert("RGB").resize((48, 48))


def token_id(piece: str) -> int:
    return int.from_bytes(sha256(piece.encode()).digest()[:4])


def picture_bytes(width: int = 8, height: int = 6, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def make_picture(name: str = "a.png", width: int = 8, height: int = 6, colour: str = "red") -> Picture:
    data = picture_bytes(width, height, colour)
    return Picture(name, data, sha256(data).hexdigest(), width, height)


def read_picture(source: str) -> Picture:
    try:
        data = Path(source).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except OSError as exc:
        raise ImageError(f"{source}: cannot be read as a picture") from exc
    return Picture(source, data, sha256(data).hexdigest(), width, height)


def crop(picture: Picture, x: int, y: int, width: int, height: int) -> Picture:
    if x + width > picture.width or y + height > picture.height:
        raise ImageError("the region is not within the picture")
    return make_picture(f"{picture.name}[{x},{y},{width},{height}]", width, height)


def paste() -> Picture:
    return make_picture("clipboard")


def expand(arguments: Sequence[str]) -> list[str]:
    return [
        str(path)
        for argument in arguments
        for path in (sorted(Path().glob(argument)) if "*" in argument else [argument])
    ]


SOURCES = PictureSources(read_picture, expand, crop, paste, frozenset({".png", ".jpg"}))


@dataclass
class Kept:
    id: str
    name: str | None
    conversation: Conversation
    model: str = "fake"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.conversation.messages[0].text


class MemoryStore:
    """Keeps conversations in memory, or raises `error` if there is one."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.models: list[str] = []
        self.error: BaseException | None = None

    def create(self) -> str:
        return f"id{len(self.kept) + 1}"

    def save(self, session_id: str, conversation: Conversation, model: str, settings: Mapping[str, Any]) -> str:
        if self.error is not None:
            raise self.error
        name = self.kept[session_id].name if session_id in self.kept else None
        copy = Conversation(list(conversation.messages), conversation.system, dropped={*conversation.dropped})
        self.kept[session_id] = Kept(session_id, name, copy, model, settings)
        self.models.append(model)
        return session_id

    def rename(self, session_id: str, name: str) -> None:
        self.kept[session_id].name = name

    def load(self, key: str) -> Kept:
        for kept in self.kept.values():
            if key in (kept.id, kept.name):
                return kept
        raise DsvlError(f"there is no conversation {key!r}")

    def list(self, limit: int | None = None) -> list[Kept]:
        return list(self.kept.values())[:limit]


class FakeCatalogue(AnyModel):
    """Knows every model but those whose names begin with `no-`; those that begin with `far-` are not on the machine."""

    def names(self) -> list[tuple[str, str]]:
        return [("fake", "on this machine"), ("other", "to be downloaded")]

    def check(self, name: str) -> None:
        if name.startswith("no-"):
            raise UsageError(f"there is no model {name!r}", "did you mean other?")

    def find_obstacle(self, name: str, options: Mapping[str, Any]) -> DsvlError | None:
        return DsvlError(f"its model {name} is not on this machine") if name.startswith("far-") else None


class Desk:
    """A chat on streams in memory: `out` and `err` are what it wrote since they were looked at last."""

    def __init__(
        self,
        model: FakeModel | None = None,
        *,
        store: ConversationStore | None = None,
        settings: ChatSettings | None = None,
        scripted: bool = False,
        variables: dict[str, str] | None = None,
        load: Callable[[str, Listener], FakeModel] | None = None,
        quiet: bool = False,
    ) -> None:
        self.model = model or FakeModel()
        self.store = MemoryStore()
        self.exports: list[Export] = []
        self._stdout, self._stderr = io.StringIO(), io.StringIO()
        self.environment = Environment(io.StringIO(), self._stdout, self._stderr, variables or {})
        self.console = Console(self.environment, quiet=quiet)
        self.loading = BackgroundModel(load or (lambda name, listener: self.model), Silence())
        services = Services(
            SOURCES,
            store or self.store,
            self.exports.append,
            lambda: PlainStream(self.console),
            models=("fake", "other"),
            catalogue=FakeCatalogue(),
        )
        self.chat = Chat(self.console, self.loading, services, settings or ChatSettings(), scripted=scripted)
        self.loading.start("fake")
        if load is None:
            self.loading.wait(10)

    @property
    def out(self) -> str:
        return _take(self._stdout)

    @property
    def err(self) -> str:
        return _take(self._stderr)

    def do(self, *lines: str) -> str:
        """Take lines as the loop would; returns all that was written to stderr."""
        from dsvl_cli.terminal.chat.input.repl import Repl
        from dsvl_cli.terminal.chat.script import ScriptLines

        repl = Repl(self.chat, ScriptLines(io.StringIO()))
        with nullcontext() if self.chat.scripted else self.chat.ctrl_c:
            for line in lines:
                repl.take(line)
        return self.err

    def texts(self) -> list[str]:
        return [message.text for message in self.chat.dialogue.messages]


def _take(stream: io.StringIO) -> str:
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    return text

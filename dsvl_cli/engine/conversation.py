"""What is said, and by whom: the values that flow between the engine and whatever shows them. No torch here.

`ChatModel` is the whole seam: a terminal needs nothing else of the engine, and a fake of it serves every test of one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from dsvl_cli.engine.options import IMAGE_MARK, SamplingParams
from dsvl_cli.errors import DsvlError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["user", "assistant"]
FinishReason = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a conversation, kept as the bytes that it came in; `engine.images.decode` gives its pixels.

    Attributes:
        name: what the user called it: a path, an address, or `-` for stdin. Not sanitized.
        data: the encoded file.
        sha256: the hexadecimal SHA-256 of `data`: the identity of the picture for caches and stores.
        width, height: in pixels, upright (after the EXIF orientation).
        notes: what the user should know, such as "animated: only the first of 12 frames is used".
    """

    name: str
    data: bytes = field(repr=False, compare=False)
    sha256: str
    width: int
    height: int
    notes: tuple[str, ...] = ()


Part = str | Picture


@dataclass(frozen=True, slots=True)
class Message:
    """One turn's worth of one speaker.

    Attributes:
        role: `user` or `assistant`.
        parts: texts and pictures in the order in which the model reads them.
        token_ids: of an assistant's message, the ids that were generated, end tokens not among them. Rendering the
            text again does not give the same ids in general, so a cache can only be reused through these.
        model: the fingerprint of the model that `token_ids` belong to; another model renders the text anew.
        finish_reason: of an assistant's message, why it ended.
    """

    role: Role
    parts: tuple[Part, ...]
    token_ids: tuple[int, ...] | None = None
    model: str | None = None
    finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        """The texts alone, joined as they stand."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures alone, in order."""
        return tuple(part for part in self.parts if isinstance(part, Picture))


def compose_parts(text: str, pictures: Sequence[Picture]) -> tuple[Part, ...]:
    """Put pictures where `<image>` stands in the text, or before it when no mark does.

    Raises:
        UsageError: there are marks, but not as many as pictures.
    """
    pieces = text.split(IMAGE_MARK)
    marks = len(pieces) - 1
    if marks == 0:
        return (*pictures, text) if text else tuple(pictures)
    if marks != len(pictures):
        raise UsageError(
            f"the text has {_count(marks, f'{IMAGE_MARK} mark')} for {_count(len(pictures), 'picture')}",
            f"write {IMAGE_MARK} once for each picture, or not at all: then the pictures come first",
        )
    parts: list[Part] = []
    for piece, picture in zip(pieces, (*pictures, None), strict=True):
        if piece:
            parts.append(piece)
        if picture is not None:
            parts.append(picture)
    return tuple(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(slots=True)
class Conversation:
    """What has been said so far; the only mutable value here.

    Attributes:
        messages: oldest first. When the last one is the user's, the model answers it; when it is the assistant's, the
            model goes on with it.
        system: replaces the checkpoint's default system text; None keeps the default, "" leaves it out.
    """

    messages: list[Message] = field(default_factory=list)
    system: str | None = None

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Every picture of every message, in order."""
        return tuple(picture for message in self.messages for picture in message.pictures)


@dataclass(frozen=True, slots=True)
class Stats:
    """What an answer cost.

    Attributes:
        prompt_tokens: the length of the whole prompt.
        cached_tokens: how many of them were taken from an earlier turn, or kept by an earlier process.
        prompt_seconds: from the question to the first token: pictures, prefill.
        generated_tokens: how many tokens were generated, an end token among them.
        generate_seconds: from the first token to the last.
        peak_memory_bytes: the highest memory of the process, or of the device where there is one; None if unknown.
    """

    prompt_tokens: int
    cached_tokens: int
    prompt_seconds: float
    generated_tokens: int
    generate_seconds: float
    peak_memory_bytes: int | None = None

    @property
    def tokens_per_second(self) -> float:
        """Decode rate: tokens after the first, by the time they took; 0.0 where there was only one."""
        steps = self.generated_tokens - 1
        return steps / self.generate_seconds if steps > 0 and self.generate_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer as it comes.

    Attributes:
        text: what is new; whole characters only. May be empty.
        token_ids: the ids that were generated since the chunk before, end tokens not among them.
        finish_reason: set on the last chunk only: `stop`, `length` or `interrupted`.
        stats: set on the last chunk only.
        notice: something that the user should know about how the answer ended, such as the context being full.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    stats: Stats | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stats: Stats | None = None
    notice: str | None = None

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> Reply:
        """Join chunks; without a last one among them the answer counts as interrupted."""
        text: list[str] = []
        ids: list[int] = []
        last = Chunk("", finish_reason="interrupted")
        for chunk in chunks:
            text.append(chunk.text)
            ids.extend(chunk.token_ids)
            if chunk.finish_reason is not None:
                last = chunk
        return cls("".join(text), tuple(ids), last.finish_reason or "interrupted", last.stats, last.notice)


@dataclass(frozen=True, slots=True)
class Request:
    """One answer that is wanted, among many.

    Attributes:
        key: whatever the caller knows it by; it comes back with the outcome.
        conversation: its last message is answered.
        sampling: how.
    """

    key: Hashable
    conversation: Conversation
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: either a reply or an error.

    Attributes:
        key: of the request.
        reply: the whole answer; None where there is an error.
        error: why there is none: an `ImageError`, a `ContextOverflow`, or no memory even for this one alone.
    """

    key: Hashable
    reply: Reply | None = None
    error: DsvlError | None = None


class BatchModel(Protocol):
    """What a job over many pictures needs of a model."""

    @property
    def name(self) -> str:
        """What the user calls the model."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies the model: equal for two loadings of one checkpoint."""
        ...

    @property
    def has_chat(self) -> bool:
        """Whether it answers; a base checkpoint only completes text."""
        ...

    def answer_all(self, requests: Iterable[Request], batch_size: int | None = None) -> Iterator[Outcome]:
        """Answer many requests, several at a time; each outcome comes as soon as it is there.

        A request is taken from the iterable only when there is room for it, so the iterable may be endless, and
        ending it ends the work after what is in flight. Requests about the same picture should follow each other:
        then the picture is prefilled once. Closing the iterator stops the work.

        Args:
            requests: taken in order.
            batch_size: at most so many at a time; None begins with what the memory should bear. Without memory for
                so many it is halved, and what was in flight is done again.
        """
        ...


class ChatModel(Protocol):
    """What a terminal needs of a model."""

    @property
    def name(self) -> str:
        """What the user calls the model."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies the token ids' owner: equal for two loadings of one checkpoint."""
        ...

    @property
    def context_length(self) -> int:
        """How many tokens prompt and answer may have together."""
        ...

    def stream(self, conversation: Conversation, sampling: SamplingParams) -> Iterator[Chunk]:
        """Answer the last message, or go on with the last answer, piece by piece.

        Closing the iterator stops the work; the conversation is not changed.

        Raises:
            ContextOverflow: before any work, when the prompt does not fit.
            ImageError: a picture cannot be decoded.
        """
        ...

    def count_tokens(self, conversation: Conversation) -> int:
        """The length in tokens of the prompt that `stream` would make of the conversation."""
        ...

    def image_tokens(self) -> int:
        """How many tokens one picture takes."""
        ...

    def view(self, picture: Picture) -> Image:
        """The picture as the model gets it: resized and padded, RGB, `(size, size)` pixels."""
        ...

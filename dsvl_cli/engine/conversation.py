"""Messages, answers and the model protocols: the values passed between the engine and its callers. No torch here.

`ChatModel` is the entire interface that a terminal needs from the engine, and terminal tests use a fake of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dsvl_cli.engine.options import IMAGE_MARK, SamplingParams
from dsvl_cli.engine.progress import OnReading
from dsvl_cli.errors import DsvlError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["user", "assistant"]
FinishReason = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a conversation, stored as its encoded bytes; `pictures.images.decode` returns its pixels.

    Attributes:
        name: as the user gave it: a path, a URL, or `-` for stdin. Not sanitized.
        data: the encoded file.
        sha256: the hexadecimal SHA-256 of `data`, which identifies the picture in caches and stores.
        width, height: in pixels, after applying the EXIF orientation.
        notes: messages for the user, such as "animated: only the first of 12 frames is used".
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
    """One message of a conversation.

    Attributes:
        role: `user` or `assistant`.
        parts: texts and pictures in the order in which the model reads them.
        token_ids: for an assistant message, the generated ids without end tokens. Tokenizing the text again
            generally yields different ids, so a cache can only be reused through these.
        model: the fingerprint of the model that `token_ids` belong to; any other model tokenizes the text.
        finish_reason: for an assistant message, why it ended.
    """

    role: Role
    parts: tuple[Part, ...]
    token_ids: tuple[int, ...] | None = None
    model: str | None = None
    finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        """The text parts only, concatenated."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures only, in order."""
        return tuple(part for part in self.parts if isinstance(part, Picture))


def compose_parts(text: str, pictures: Sequence[Picture]) -> tuple[Part, ...]:
    """Put pictures in place of the `<image>` marks in the text, or before the text if it has none.

    Raises:
        UsageError: the number of marks differs from the number of pictures.
    """
    pieces = text.split(IMAGE_MARK)
    marks = len(pieces) - 1
    if marks == 0:
        return (*pictures, text) if text else tuple(pictures)
    if marks != len(pictures):
        raise UsageError(
            f"the text has {_count(marks, f'{IMAGE_MARK} mark')} for {_count(len(pictures), 'picture')}",
            f"write {IMAGE_MARK} once for each picture, or leave it out to put the pictures first",
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
    """The messages so far; the only mutable value in this module.

    Attributes:
        messages: oldest first. If the last one is the user's, the model answers it; if it is the assistant's, the
            model continues it.
        system: replaces the checkpoint's default system prompt; None keeps the default, "" omits it.
        is_excerpt: whether its oldest messages are left out. Its KV cache is not stored on disk: no later process would
            ask for just this excerpt.
        dropped: the numbers of pictures that were removed; no other picture gets them.
    """

    messages: list[Message] = field(default_factory=list)
    system: str | None = None
    is_excerpt: bool = False
    dropped: set[int] = field(default_factory=set)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures of all messages, in order."""
        return tuple(picture for message in self.messages for picture in message.pictures)

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the pictures, in order, and of those to come: from 1, without those of dropped ones."""
        return (number for number in itertools.count(1) if number not in self.dropped)


@dataclass(frozen=True, slots=True)
class Stats:
    """Token counts, times and memory of an answer.

    Attributes:
        prompt_tokens: the length of the whole prompt.
        cached_tokens: how many of them came from the KV cache of an earlier turn or from the prefix store.
        prompt_seconds: time to first token, including picture encoding and prefill.
        generated_tokens: how many tokens were generated, including the end token.
        generate_seconds: from the first token to the last.
        peak_memory_bytes: peak memory of the GPU, or of the process on a CPU; None if unknown.
    """

    prompt_tokens: int
    cached_tokens: int
    prompt_seconds: float
    generated_tokens: int
    generate_seconds: float
    peak_memory_bytes: int | None = None

    @property
    def tokens_per_second(self) -> float:
        """Decode rate: tokens after the first per second; 0.0 if there was only one."""
        steps = self.generated_tokens - 1
        return steps / self.generate_seconds if steps > 0 and self.generate_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer, or an alternative to one, with its log probability.

    The probabilities are those of the model itself, before temperature, penalties and what top-k, top-p and min-p leave
    out; under a constraint, given that the answer follows it.

    Attributes:
        token: its text; `bytes:` and the escaped bytes of a token that is part of a character; the name of a control
            token.
        logprob: the natural logarithm of its probability.
        utf8: its bytes; None for a control token, which has no text.
        top_logprobs: the most likely tokens in its place, the likeliest first.
    """

    token: str
    logprob: float
    utf8: bytes | None
    top_logprobs: tuple[TokenLogprob, ...] = ()

    def to_fields(self) -> dict[str, Any]:
        """Return it as JSON values, as OpenAI's API does."""
        fields = self._to_fields()
        fields["top_logprobs"] = [other._to_fields() for other in self.top_logprobs]
        return fields

    def _to_fields(self) -> dict[str, Any]:
        return {
            "token": self.token,
            "logprob": self.logprob,
            "bytes": None if self.utf8 is None else list(self.utf8),
        }


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer.

    Attributes:
        text: the new text, whole characters only. May be empty.
        token_ids: the ids generated since the previous chunk, without end tokens.
        finish_reason: set on the last chunk only: `stop`, `length` or `interrupted`.
        stats: set on the last chunk only.
        notice: a message for the user about how the answer ended, such as the context being full.
        probabilities: of an answer from a list, set on the last chunk: the model's probability of each choice given
            that the answer is one of them.
        logprobs: set on the last chunk if they were asked for: those of the tokens whose texts together are the answer.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    stats: Stats | None = None
    notice: str | None = None
    probabilities: Mapping[str, float] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stats: Stats | None = None
    notice: str | None = None
    probabilities: Mapping[str, float] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> Reply:
        """Join chunks; if the last one is missing, the answer counts as interrupted."""
        text: list[str] = []
        ids: list[int] = []
        last = Chunk("", finish_reason="interrupted")
        for chunk in chunks:
            text.append(chunk.text)
            ids.extend(chunk.token_ids)
            if chunk.finish_reason is not None:
                last = chunk
        reason = last.finish_reason or "interrupted"
        return cls("".join(text), tuple(ids), reason, last.stats, last.notice, last.probabilities, last.logprobs)


@dataclass(frozen=True, slots=True)
class Request:
    """A request for one answer of a batch.

    Attributes:
        key: the caller's identifier, returned with the outcome.
        conversation: its last message is answered.
        sampling: how to sample the answer.
    """

    key: Hashable
    conversation: Conversation
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a request: either a reply or an error.

    Attributes:
        key: of the request.
        reply: the complete answer; None if there was an error.
        error: an `ImageError`, a `ContextOverflow`, or a `MemoryShortage` for this request alone.
    """

    key: Hashable
    reply: Reply | None = None
    error: DsvlError | None = None


class BatchModel(Protocol):
    """What a batch job needs from a model."""

    @property
    def name(self) -> str:
        """What the user calls the model."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies the model; the same each time a checkpoint is loaded."""
        ...

    @property
    def has_chat(self) -> bool:
        """Whether this is a chat model; a base checkpoint only completes text."""
        ...

    def choose_batch_size(self) -> int:
        """Estimate how many requests can be answered together in the free memory."""
        ...

    def answer_all(self, requests: Iterable[Request], batch_size: int | None = None) -> Iterator[Outcome]:
        """Answer many requests, several at a time, yielding each outcome as soon as it is ready.

        Requests are taken from the iterable only when there is room, so it may be endless; when it ends, the
        requests in flight are finished. Consecutive requests about the same picture prefill it only once. Closing
        the iterator stops the work.

        Args:
            requests: taken in order.
            batch_size: how many to answer at a time at most; None estimates it from the free memory. On running out
                of memory it is halved, and the requests in flight are repeated.
        """
        ...


class ChatModel(Protocol):
    """What a terminal needs from a model."""

    @property
    def name(self) -> str:
        """What the user calls the model."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies the model that token ids belong to; the same each time a checkpoint is loaded."""
        ...

    @property
    def context_length(self) -> int:
        """The maximum number of tokens of prompt and answer together."""
        ...

    def stream(
        self, conversation: Conversation, sampling: SamplingParams, on_reading: OnReading | None = None
    ) -> Iterator[Chunk]:
        """Stream the answer to the last message, or the continuation of the last answer.

        Closing the iterator stops the work; the conversation is not changed.

        Args:
            conversation: ends with what to answer or to continue.
            sampling: how to choose the tokens.
            on_reading: told how far the prompt has been read, before the first token.

        Raises:
            ContextOverflow: before any work, if the prompt does not fit.
            ImageError: a picture cannot be decoded.
        """
        ...

    @property
    def held_bytes(self) -> int:
        """About how much memory becomes free when the model is released; 0 if its weights are memory-mapped."""
        ...

    def count_tokens(self, conversation: Conversation) -> int:
        """The length in tokens of the prompt that `stream` would use for the conversation."""
        ...

    def image_tokens(self) -> int:
        """The number of tokens per picture."""
        ...

    def view(self, picture: Picture) -> Image:
        """The picture as the model sees it: resized and padded, RGB, `(size, size)` pixels."""
        ...

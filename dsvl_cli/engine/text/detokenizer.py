"""Streaming token ids -> text: only complete characters, and nothing after a stop string."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from dsvl_cli.engine.conversation import FinishReason


class Detokenizer:
    """Decodes an answer token by token.

    Text that ends in an incomplete UTF-8 sequence is held back. The concatenation of all pieces, including that of
    `finish`, equals decoding all ids at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._length = 0

    def add(self, token_id: int) -> str:
        """Add an id and return the text that it completes: often one word, sometimes nothing."""
        self._ids.append(token_id)
        text: str = self._stream.step(self._tokenizer, token_id) or ""
        self._length += len(text)
        return text

    def finish(self) -> str:
        """Return the text held back, with an incomplete sequence as U+FFFD."""
        whole: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        return whole[self._length :]


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that can be shown, and the ids whose text it completes."""

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None


class Answer:
    """Turns the ids of an answer into pieces of text and decides when it ends.

    Args:
        tokenizer: of the checkpoint.
        end_ids: ids that end the answer; they are not part of it.
        stop: strings that end the answer; neither they nor anything after them is part of it. Text that may be the
            start of one is held back.
        max_new_tokens: the number of ids after which it ends with `length`.
        strip_space: drop one leading space, which the prompt format puts after `Assistant:`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_ids: frozenset[int],
        stop: Sequence[str],
        max_new_tokens: int,
        *,
        strip_space: bool,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._end_ids = end_ids
        self._stop = tuple(stop)
        self._max_new_tokens = max_new_tokens
        self._strip_space = strip_space
        self._held = ""
        # Ids not yet returned, each with the text length at which it is complete.
        self._pending: deque[tuple[int, int]] = deque()
        self._seen = 0
        self._shown = 0
        self.count = 0

    def add(self, token_id: int) -> Piece:
        """Add the next id; the last piece has a `finish_reason`."""
        self.count += 1
        if token_id in self._end_ids:
            return self._end("stop")
        text = self._strip(self._detokenizer.add(token_id))
        self._seen += len(text)
        self._held += text
        # An id without text starts a character or is a control token: it is returned with the next one.
        self._pending.append((token_id, self._seen if text else self._seen + 1))
        found = _find_first(self._held, self._stop)
        if found is not None:
            return self._release(found, "stop")
        if self.count >= self._max_new_tokens:
            return self._end("length")
        return self._release(len(self._held) - _possible_start(self._held, self._stop), None)

    def _end(self, reason: FinishReason) -> Piece:
        """End with `reason`, unless the text held back completes a stop string."""
        rest = self._strip(self._detokenizer.finish())
        self._held += rest
        self._seen += len(rest)
        found = _find_first(self._held, self._stop)
        if found is not None:
            return self._release(found, "stop")
        return self._release(len(self._held), reason, everything=True)

    def _release(self, length: int, reason: FinishReason | None, *, everything: bool = False) -> Piece:
        text, self._held = self._held[:length], self._held[length:]
        self._shown += len(text)
        ids: list[int] = []
        while self._pending and (everything or self._pending[0][1] <= self._shown):
            ids.append(self._pending.popleft()[0])
        return Piece(text, tuple(ids), reason)

    def _strip(self, text: str) -> str:
        if not text or not self._strip_space:
            return text
        self._strip_space = False
        return text.removeprefix(" ")


def _find_first(text: str, stop: Sequence[str]) -> int | None:
    """Return the index of the first stop string in the text, or None."""
    found = [index for string in stop if (index := text.find(string)) >= 0]
    return min(found, default=None)


def _possible_start(text: str, stop: Sequence[str]) -> int:
    """Return the length of the longest suffix of the text that is a prefix of a stop string."""
    longest = 0
    for string in stop:
        for length in range(min(len(string) - 1, len(text)), longest, -1):
            if text.endswith(string[:length]):
                longest = length
                break
    return longest

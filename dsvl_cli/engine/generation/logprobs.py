"""The log probabilities of the tokens of an answer, for those who ask for them.

They are the log softmax of the model's logits, before temperature, penalties and what top-k, top-p and min-p leave out,
so that they do not depend on how tokens are chosen. Where a constraint decides what may come next, they are those of
what may: the logits under a grammar, and the shares of the answers of a list that go on with a token.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from dsvl_cli.engine.conversation import TokenLogprob
from dsvl_cli.engine.generation.scoring import CandidateAnswers
from dsvl_cli.engine.text.token_bytes import TokenBytes, show_bytes


@dataclass(frozen=True, slots=True)
class _Step:
    """A token that was chosen, and the most likely ones in its place, as pairs of id and log probability."""

    token_id: int
    logprob: float
    others: tuple[tuple[int, float], ...]


class LogprobRecorder:
    """Takes the log probabilities of one answer while it is generated.

    Args:
        count: of the alternatives to each token.
        vocabulary: looks up the bytes of tokens.
        end_ids: ids that end the answer; they are not part of it.
        strip_space: the answer is without one leading space, which the prompt format puts after `Assistant:`.
    """

    def __init__(self, count: int, vocabulary: TokenBytes, end_ids: frozenset[int], *, strip_space: bool) -> None:
        self._count = count
        self._vocabulary = vocabulary
        self._end_ids = end_ids
        self._strip_space = strip_space
        self._total = torch.zeros(())
        self._steps: list[_Step] = []
        self._text: list[str] = []

    def see(self, logits: torch.Tensor) -> None:
        """Take the logits `(vocabulary,)` of what may come next under a grammar, or of everything without one."""
        self._total = logits.logsumexp(dim=-1)

    def record(self, token_id: int, logits: torch.Tensor) -> None:
        """Take the token that was chosen from logits `(vocabulary,)`, with -inf for those that are never chosen."""
        found = logits.topk(min(self._count, len(logits)))
        # Rounding may make the logarithm of a probability of 1 positive.
        values = (torch.cat([logits[token_id : token_id + 1], found.values]) - self._total).clamp(max=0).tolist()
        others = zip(found.indices.tolist(), values[1:], strict=True)
        self._add(token_id, values[0], [(other, value) for other, value in others if value > float("-inf")])

    def record_choice(self, candidates: CandidateAnswers, scores: Sequence[float], chosen: int) -> None:
        """Take the tokens of an answer from a list.

        The probability of a token is the share of the answers that go on with it, of those that begin as it does. With
        that of the end, their product is the probability of the answer.
        """
        whole = candidates.token_ids[chosen]
        end = min(self._end_ids)
        begun = list(zip(candidates.token_ids, scores, strict=True))
        for position, token_id in enumerate(whole):
            following: dict[int, list[float]] = {}
            for ids, score in begun:
                following.setdefault(ids[position] if position < len(ids) else end, []).append(score)
            sums = {each: _add_logs(found) for each, found in following.items()}
            total = _add_logs(list(sums.values()))
            shares = {each: min(0.0, value - total) for each, value in sums.items()}
            ranked = sorted(shares.items(), key=lambda pair: -pair[1])
            self._add(token_id, shares[token_id], ranked[: self._count])
            begun = [(ids, score) for ids, score in begun if ids[position : position + 1] == (token_id,)]

    def add_text(self, text: str) -> None:
        """Take the text that the tokens so far have completed."""
        self._text.append(text)

    def finish(self) -> tuple[TokenLogprob, ...]:
        """Return the tokens whose bytes, joined, are the text: not those of a stop string, of which one may be cut."""
        return tuple(self._finish())

    def _add(self, token_id: int, logprob: float, others: Sequence[tuple[int, float]]) -> None:
        if token_id not in self._end_ids:
            self._steps.append(_Step(token_id, logprob, tuple(others)))

    def _finish(self) -> Iterator[TokenLogprob]:
        text = "".join(self._text)
        strips = self._strip_space
        tokens: list[tuple[_Step, bytes, bool]] = []
        for step in self._steps:
            data = self._vocabulary.find(step.token_id) or b""
            tokens.append((step, data.removeprefix(b" ") if strips else data, strips))
            strips = strips and not data
        whole = b"".join(data for _, data, _ in tokens)
        # Without a stop string all tokens are part of the text, the beginning of a character at its end too.
        left = len(whole) if whole.decode(errors="replace") == text else _find_end(whole, len(text))
        for step, data, is_stripped in tokens:
            if data and not left:
                return
            kept = data[:left]
            left -= len(kept)
            others = tuple(self._show(*other, strips=is_stripped) for other in step.others)
            yield TokenLogprob(show_bytes(kept), step.logprob, kept, others)

    def _show(self, token_id: int, logprob: float, *, strips: bool) -> TokenLogprob:
        data = self._vocabulary.find(token_id)
        if data is None:
            return TokenLogprob(self._vocabulary.name(token_id), logprob, None)
        data = data.removeprefix(b" ") if strips else data
        return TokenLogprob(show_bytes(data), logprob, data)


def _find_end(data: bytes, length: int) -> int:
    """Return how many bytes so many characters of a text have, which may have replacements of what is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found = end = 0
    for position in range(len(data)):
        if found >= length:
            break
        found += len(decoder.decode(data[position : position + 1]))
        if found <= length:
            end = position + 1
    return end


def _add_logs(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).logsumexp(dim=0))

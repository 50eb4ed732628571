"""Logits -> next token: repetition penalty, temperature, top-k, top-p and min-p, in this order, then sampling.

The scores are bit for bit those of the logits processors of transformers. Only which of several equal scores at the
border of top-p stay is defined here and left open there, and a penalty or a temperature next to zero gives what it
tends to, where theirs gives no number.
"""

from __future__ import annotations

import torch

from dsvl_cli.engine.generation.grammar import Matcher
from dsvl_cli.engine.generation.logprobs import LogprobRecorder
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.errors import DsvlError

_COLD = 1e-6  # below it a score divided by the temperature may be infinite
_LEAST = 1e-30  # still a number in float32, and still one where a score is divided by it
_HIGHEST = 1e30  # of a penalized score: no temperature from _COLD on makes it infinite


class Sampler:
    """Chooses the tokens of one answer.

    Each answer has its own random generator on the CPU: with a seed, it is the same alone and in a batch, on every
    device. The order of the steps is that of `generate` in transformers.

    Args:
        params: the sampling parameters.
        prompt_ids: the prompt; the repetition penalty applies to its tokens too.
        banned: ids that are never chosen: those that only prompts may hold, and those that no token has.
        grammar: what the answer must match; None for a free one.
        recorder: takes the log probabilities of the tokens; None if nobody asks for them.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: tuple[int, ...],
        banned: torch.Tensor | None = None,
        grammar: Matcher | None = None,
        recorder: LogprobRecorder | None = None,
    ) -> None:
        self._params = params
        self._banned = banned
        self._grammar = grammar
        self.recorder = recorder
        self._greedy = params.temperature == 0.0
        self._penalizes = params.repetition_penalty != 1.0
        self._seen = set(prompt_ids) if self._penalizes else set()
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    @property
    def is_plain(self) -> bool:
        """Whether it always takes the argmax, so that a batch can be chosen in one operation."""
        return self._greedy and not self._penalizes

    def choose(self, logits: torch.Tensor) -> int:
        """Choose a token from logits `(vocabulary,)` in float32."""
        scores = self.score(logits)
        if self._greedy:
            return int(scores.argmax(dim=-1))
        return draw(scores, self._generator)

    def score(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the scores `(vocabulary,)` to sample from: -inf for tokens that must not be chosen."""
        params, scores = self._params, logits
        if self._penalizes:
            scores = penalize(scores, self._seen, params.repetition_penalty)
        if self._greedy:
            return scores
        if params.temperature < _COLD:
            scores = scores - scores.amax(dim=-1)  # the most likely token stays finite, though others may underflow
        if params.temperature != 1.0:
            scores = scores / max(params.temperature, _LEAST)
        if params.top_k > 0:
            scores = keep_top_k(scores, params.top_k)
        if params.top_p < 1.0:
            scores = keep_top_p(scores, params.top_p)
        if params.min_p > 0.0:
            scores = keep_min_p(scores, params.min_p)
        return scores

    def ban(self, logits: torch.Tensor) -> None:
        """Take the tokens that must not come next out of logits `(vocabulary,)`, in place."""
        if self.recorder is not None and self._grammar is None:
            self.recorder.see(logits)
        if self._banned is not None:
            logits.index_fill_(-1, self._banned.to(logits.device), -torch.inf)
        if self._grammar is not None:
            self._grammar.mask(logits)
            if self.recorder is not None:
                self.recorder.see(logits)

    def accept(self, token_id: int) -> None:
        """Record a chosen token."""
        if self._grammar is not None:
            self._grammar.accept(token_id)
        if self._penalizes:
            self._seen.add(token_id)


@torch.inference_mode()
def choose_all(samplers: list[Sampler], logits: torch.Tensor) -> list[int]:
    """Choose a token for each row of logits `(batch, vocabulary)` in float32, from which banned ones are taken out.

    Raises:
        DsvlError: the logits are no numbers, as those of damaged weights.
    """
    for sampler, row in zip(samplers, logits, strict=True):
        sampler.ban(row)
    check_numbers(logits)
    if all(sampler.is_plain for sampler in samplers):
        chosen: list[int] = logits.argmax(dim=-1).tolist()
    else:
        chosen = [sampler.choose(row) for sampler, row in zip(samplers, logits, strict=True)]
    for index, (sampler, token_id) in enumerate(zip(samplers, chosen, strict=True)):
        sampler.accept(token_id)
        if sampler.recorder is not None:
            sampler.recorder.record(token_id, logits[index])
    return chosen


def check_numbers(logits: torch.Tensor) -> None:
    """Refuse logits that are no numbers, as those of damaged weights.

    Raises:
        DsvlError: they are none.
    """
    # The largest is NaN if any is.
    if not bool(logits.amax(dim=-1).isfinite().all()):
        raise DsvlError("the model computes no numbers: its weights are damaged", "download it again")


def draw(scores: torch.Tensor, generator: torch.Generator) -> int:
    """Draw a token with probabilities `softmax(scores)`.

    Looks up one random number in the cumulative sum; `torch.multinomial` draws one for each token of the vocabulary,
    which takes ten times as long.
    """
    sums = scores.softmax(dim=-1).cpu().double().cumsum(dim=-1)
    # Rounding may move the number to the very end, past the last token with a nonzero probability.
    number = torch.rand(1, generator=generator, dtype=torch.float64) * sums[-1]
    number = torch.minimum(number, sums[-1].nextafter(torch.zeros((), dtype=torch.float64)))
    return int(torch.searchsorted(sums, number, right=True))


def penalize(scores: torch.Tensor, token_ids: set[int], penalty: float) -> torch.Tensor:
    """Make tokens less likely by a factor on their scores (CTRL, Keskar et al. 2019)."""
    ids = torch.tensor([i for i in token_ids if i < len(scores)], dtype=torch.long, device=scores.device)
    chosen = scores[ids]
    penalized = torch.where(chosen < 0, chosen * penalty, chosen / max(penalty, _LEAST))
    return scores.index_copy(0, ids, penalized.clamp(-_HIGHEST, _HIGHEST))


def keep_top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the k highest scores, including ties with the lowest of them."""
    lowest = scores.topk(min(k, len(scores))).values[-1]
    return scores.masked_fill(scores < lowest, -torch.inf)


def keep_top_p(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Keep the most likely tokens whose probabilities sum to p or more (nucleus sampling, Holtzman et al. 2019)."""
    ordered = _ascending(scores)
    dropped = min(int((ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p).sum()), len(ordered) - 1)
    lowest = ordered[dropped]
    drop = scores < lowest
    # Of equal scores at the threshold, those with the smaller ids are dropped first.
    equal_ones = (scores == lowest).nonzero().squeeze(-1)
    drop[equal_ones[: dropped - int(drop.sum())]] = True
    return scores.masked_fill(drop, -torch.inf)


def keep_min_p(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Keep tokens at least p times as likely as the most likely one (Nguyen et al. 2024)."""
    probabilities = scores.softmax(dim=-1)
    return scores.masked_fill(probabilities < p * probabilities.amax(dim=-1), -torch.inf)


def _ascending(scores: torch.Tensor) -> torch.Tensor:
    if scores.device.type != "cpu":
        return scores.sort().values
    # numpy's sort takes a tenth of the time of torch's, which also computes the indices.
    ordered = torch.empty_like(scores)
    ordered.copy_(scores).numpy().sort()
    return ordered

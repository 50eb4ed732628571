"""Logits -> the next token, with transformers' own logits processors."""

from __future__ import annotations

from typing import Any

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from dsvl_cli.engine.options import SamplingParams


class Sampler:
    """Chooses the tokens of one answer.

    Each answer draws from a generator of its own on the CPU, so that a seed gives the same answer alone or in a
    batch, on every device. The order of the processors is that of `transformers.generate`.

    Args:
        params: how to choose.
        prompt_ids: the prompt; a repetition penalty counts its tokens too.
    """

    def __init__(self, params: SamplingParams, prompt_ids: tuple[int, ...]) -> None:
        self._greedy = params.temperature == 0.0
        self._processors = _processors(params)
        self._penalizes = params.repetition_penalty != 1.0
        self._ids = list(prompt_ids)
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    @property
    def is_plain(self) -> bool:
        """Whether it is the likeliest token in any case, so that rows of a batch can be chosen in one operation."""
        return self._greedy and not self._penalizes

    def choose(self, logits: torch.Tensor) -> int:
        """Choose from logits `(vocabulary,)` in float32."""
        ids: Any = torch.tensor([self._ids if self._penalizes else []], device=logits.device, dtype=torch.long)
        scores = self._processors(ids, logits.unsqueeze(0))
        if self._greedy:
            return int(scores.argmax(dim=-1))
        probabilities = scores.softmax(dim=-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def accept(self, token_id: int) -> None:
        """Note a token that was chosen."""
        if self._penalizes:
            self._ids.append(token_id)


def choose_all(samplers: list[Sampler], logits: torch.Tensor) -> list[int]:
    """Choose a token for each row of logits `(batch, vocabulary)` in float32."""
    if all(sampler.is_plain for sampler in samplers):
        chosen: list[int] = logits.argmax(dim=-1).tolist()
    else:
        chosen = [sampler.choose(row) for sampler, row in zip(samplers, logits, strict=True)]
    for sampler, token_id in zip(samplers, chosen, strict=True):
        sampler.accept(token_id)
    return chosen


def _processors(params: SamplingParams) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature == 0.0:
        return processors
    if params.temperature != 1.0:
        processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k > 0:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.min_p > 0.0:
        processors.append(MinPLogitsWarper(params.min_p))
    return processors

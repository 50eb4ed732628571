"""Turns the replies of a model to a question into its answer, by the form that it was to have."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from dsvl_cli.batch.row import Answer
from dsvl_cli.engine.constraints import Constraint, JsonSchema, OneOf
from dsvl_cli.engine.conversation import FinishReason, Reply
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.samples import Samples, draw_samples, list_samplings, read_samples
from dsvl_cli.engine.schemas import read_value

Judge = Callable[[str, str, FinishReason], str | None]


@dataclass(slots=True)
class Asked:
    """A question about an item, which the model is asked once for each reply that it takes.

    Attributes:
        prompt: the question.
        sampling: how to choose the tokens of the replies, and what form they must have.
        samples: how many answers to give.
        replies: those that are there, by number.
        begun: when it was first asked, by `time.perf_counter`; None before.
    """

    prompt: str
    sampling: SamplingParams
    samples: int = 1
    replies: dict[int, Reply] = field(default_factory=dict)
    begun: float | None = None

    @property
    def constraint(self) -> Constraint | None:
        """What form the replies must have."""
        return self.sampling.constraint

    @property
    def due(self) -> int:
        """The number of replies it takes: one if all would be equal, or for a list, whose probabilities are known."""
        is_repeated = self.sampling.temperature > 0 and not isinstance(self.constraint, OneOf)
        return self.samples if is_repeated else 1

    def samplings(self) -> list[SamplingParams]:
        """Return the sampling parameters of each reply."""
        return list_samplings(self.sampling, self.due)

    def begin(self) -> None:
        """Note that it is being asked."""
        self.begun = self.begun or time.perf_counter()


def read_answer(asked: Asked, judge: Judge, least_probability: float) -> Answer:
    """Convert the replies to a question.

    Args:
        asked: with all of its replies.
        judge: takes text, prompt and finish reason of a free answer; returns why it is suspect, or None.
        least_probability: an answer from a list is suspect below it.

    Raises:
        InvalidAnswer: they are not what their schema asks for.
    """
    replies = [reply for _, reply in sorted(asked.replies.items())]
    first = replies[0]
    if asked.samples == 1:
        return _convert(first, asked, judge, least_probability)
    if first.probabilities is not None:
        drawn = draw_samples(first.text, first.probabilities, asked.sampling, asked.samples)
        return _add_samples(_convert(first, asked, judge, least_probability), drawn)
    if len(replies) < asked.samples:
        replies *= asked.samples
    samples = read_samples(replies, asked.constraint)
    answer = _add_samples(_convert(replies[samples.best], asked, judge, least_probability), samples)
    return answer if answer.tokens is None else _add_up(answer, replies, asked)


def _convert(reply: Reply, asked: Asked, judge: Judge, least_probability: float) -> Answer:
    stats = reply.stats
    answer = Answer(
        reply.text,
        reply.finish_reason,
        stats.prompt_tokens if stats else None,
        stats.generated_tokens if stats else None,
        round(stats.prompt_seconds + stats.generate_seconds, 3) if stats else None,
    )
    if reply.logprobs is not None:
        answer = replace(answer, logprobs=[token.to_fields() for token in reply.logprobs])
    if isinstance(asked.constraint, JsonSchema):
        return replace(answer, value=read_value(asked.constraint, reply.text, reply.finish_reason))
    if reply.probabilities is None:
        return replace(answer, suspicion=judge(reply.text, asked.prompt, reply.finish_reason))
    answer = replace(answer, probabilities=dict(reply.probabilities))
    chance = answer.probability or 0.0
    if chance < least_probability:
        return replace(answer, suspicion=f"probability {chance:.2f} is below {least_probability:g}")
    return answer


def _add_samples(answer: Answer, samples: Samples) -> Answer:
    return replace(answer, samples=samples.each, disagreement=samples.disagreement)


def _add_up(answer: Answer, replies: Sequence[Reply], asked: Asked) -> Answer:
    """Count the tokens and the time of all replies."""
    tokens = sum(reply.stats.generated_tokens for reply in replies if reply.stats)
    if asked.begun is None:
        return replace(answer, tokens=tokens)
    return replace(answer, tokens=tokens, seconds=round(time.perf_counter() - asked.begun, 3))

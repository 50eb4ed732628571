"""Several answers to one question: how far they disagree, and which of them stands for all. No torch here."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsvl_cli.engine.constraints import Constraint, JsonSchema
from dsvl_cli.engine.conversation import FinishReason, Reply
from dsvl_cli.engine.options import LARGEST_SEED, SamplingParams
from dsvl_cli.engine.schemas import read_value
from dsvl_cli.errors import InvalidAnswer

_DIGITS = 4  # of a disagreement
# Han and kana are written without spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


class _NoValue:
    """Stands for an answer without JSON, whose value may be anything, null too."""

    def __repr__(self) -> str:
        return "NO_VALUE"

    def __reduce__(self) -> str:  # in another process, it is the one that is there
        return "NO_VALUE"


NO_VALUE = _NoValue()


@dataclass(frozen=True, slots=True)
class Sample:
    """One of several answers to a question.

    Attributes:
        text: the unmodified output.
        finish_reason: why it ended.
        tokens: the number of generated tokens; None if it was drawn from a list of choices.
        value: the JSON of an answer under a schema.
        error: why it is not valid under its schema; None if it is, or needs not be.
        logprobs: the tokens with their log probabilities, in the form of OpenAI's API, if they were asked for.
    """

    text: str
    finish_reason: FinishReason = "stop"
    tokens: int | None = None
    value: Any = NO_VALUE
    error: str | None = None
    logprobs: Sequence[Mapping[str, Any]] | None = None

    @property
    def result(self) -> Any:
        """The value if there is one, else the text; None if it is not valid."""
        if self.error is not None:
            return None
        return self.text if self.value is NO_VALUE else self.value


@dataclass(frozen=True, slots=True)
class Samples:
    """All answers to a question.

    Attributes:
        each: in order.
        best: the index of the one that stands for all.
        disagreement: from 0, all are equal, to 1, no two have anything in common.
    """

    each: tuple[Sample, ...]
    best: int
    disagreement: float


def list_samplings(sampling: SamplingParams, count: int) -> list[SamplingParams]:
    """Return the parameters of several samples: each has a seed of its own, the first that of `sampling`."""
    if sampling.seed is None:
        return [sampling] * count
    return [replace(sampling, seed=seed) for seed in _list_seeds(sampling.seed, count)]


def read_samples(replies: Sequence[Reply], constraint: Constraint | None) -> Samples:
    """Compare replies: texts by their words, JSON by its value. One that is not valid is like no other.

    Raises:
        InvalidAnswer: none of them is valid under its schema.
    """
    each: list[Sample] = []
    errors: list[InvalidAnswer] = []
    for reply in replies:
        tokens = reply.stats.generated_tokens if reply.stats else None
        logprobs = None if reply.logprobs is None else [token.to_fields() for token in reply.logprobs]
        sample = Sample(reply.text, reply.finish_reason, tokens, logprobs=logprobs)
        if isinstance(constraint, JsonSchema):
            try:
                sample = replace(sample, value=read_value(constraint, reply.text, reply.finish_reason))
            except InvalidAnswer as error:
                errors.append(error)
                sample = replace(sample, error=error.message)
        each.append(sample)
    if len(errors) == len(each):
        raise InvalidAnswer(f"none of {len(each)} samples is valid: {errors[0].message}", errors[0].hint)
    if isinstance(constraint, JsonSchema):
        keys = [_identify(sample.value) if sample.error is None else ("invalid", i) for i, sample in enumerate(each)]
        valid = [key for key, sample in zip(keys, each, strict=True) if sample.error is None]
        best = keys.index(Counter(valid).most_common(1)[0][0])
        return Samples(tuple(each), best, measure_entropy(keys))
    overlaps = _mean_overlaps([sample.text for sample in each])
    best = max(range(len(each)), key=overlaps.__getitem__)
    return Samples(tuple(each), best, _round(1 - sum(overlaps) / len(overlaps)))


def draw_samples(text: str, probabilities: Mapping[str, float], sampling: SamplingParams, count: int) -> Samples:
    """Draw answers from a list whose probabilities are known; the likeliest stands for all, whatever is drawn.

    Args:
        text: the likeliest.
        probabilities: of each answer.
        sampling: its temperature and its seed count.
        count: how many to draw.
    """
    chances = _heat(probabilities, sampling.temperature)
    texts, weights = list(chances), list(chances.values())
    seeds = [None] * count if sampling.seed is None else _list_seeds(sampling.seed, count)
    drawn = [random.Random(seed).choices(texts, weights)[0] for seed in seeds]
    best = drawn.index(text) if text in drawn else 0
    return Samples(tuple(Sample(each) for each in drawn), best, measure_entropy(drawn))


def measure_entropy(keys: Sequence[Hashable]) -> float:
    """Return the entropy of the shares of equal keys, divided by its maximum: 0 if all are equal, 1 if no two are."""
    if len(keys) < 2:
        return 0.0
    shares = [count / len(keys) for count in Counter(keys).values()]
    return _round(-sum(share * math.log(share) for share in shares) / math.log(len(keys)))


def measure_overlap(one: str, other: str) -> float:
    """Return how many words two texts share: twice the common ones over all, each as often as it occurs (F1).

    Words are runs of letters and digits in lower case, or single characters of Chinese and Japanese.
    """
    return _overlap(_count_words(one), _count_words(other))


def samples_to_fields(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return samples as JSON values: `samples`, and `sample_details` unless there is nothing to add."""
    fields: dict[str, Any] = {"samples": [sample.result for sample in samples]}
    if any(sample.tokens is not None or sample.finish_reason != "stop" for sample in samples):
        fields["sample_details"] = [_to_details(sample) for sample in samples]
    return fields


def samples_from_fields(results: Sequence[Any], details: Sequence[Mapping[str, Any]] | None) -> tuple[Sample, ...]:
    """Read what `samples_to_fields` returned.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    if not isinstance(results, (list, tuple)):
        raise TypeError("samples are not a list")
    if details is None:
        return tuple(Sample(text) for text in results)
    found = []
    for result, each in zip(results, details, strict=True):
        has_value = "text" in each and each.get("error") is None
        found.append(
            Sample(
                each.get("text", result),
                each["finish_reason"],
                each["tokens"],
                result if has_value else NO_VALUE,
                each.get("error"),
                each.get("logprobs"),
            )
        )
    return tuple(found)


def _to_details(sample: Sample) -> dict[str, Any]:
    details: dict[str, Any] = {"finish_reason": sample.finish_reason, "tokens": sample.tokens}
    if sample.value is not NO_VALUE or sample.error is not None:
        details["text"] = sample.text
    if sample.logprobs is not None:
        details["logprobs"] = list(sample.logprobs)
    return details if sample.error is None else {**details, "error": sample.error}


def _list_seeds(seed: int, count: int) -> list[int]:
    return [(seed + index) % (LARGEST_SEED + 1) for index in range(count)]


def _heat(probabilities: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Return weights for another temperature; at 0 only those of the likeliest are left."""
    highest = max(probabilities.values())
    if temperature == 0:
        return {text: float(chance == highest) for text, chance in probabilities.items()}
    return {
        text: math.exp((math.log(chance) - math.log(highest)) / temperature) if chance > 0 else 0.0
        for text, chance in probabilities.items()
    }


def _identify(value: Any) -> Hashable:
    """Return what is the same for equal JSON values alone: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, dict):
        return "object", frozenset((name, _identify(part)) for name, part in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_identify, value))
    return ("number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)), value


def _mean_overlaps(texts: Sequence[str]) -> list[float]:
    """Return the mean overlap of each text with the others."""
    words = [_count_words(text) for text in texts]
    sums = [0.0] * len(texts)
    for index, one in enumerate(words):
        for other in range(index):
            overlap = _overlap(one, words[other])
            sums[index] += overlap
            sums[other] += overlap
    return [total / max(1, len(texts) - 1) for total in sums]


def _count_words(text: str) -> Counter[str]:
    # A text without any, such as "?!", is compared as a whole.
    return Counter(_WORD.findall(text.casefold()) or [text.strip()])


def _overlap(one: Counter[str], other: Counter[str]) -> float:
    return 2 * (one & other).total() / (one.total() + other.total())


def _round(number: float) -> float:
    return round(min(1.0, max(0.0, number)), _DIGITS)

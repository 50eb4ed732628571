"""Our scores against those of transformers' own processors, bit for bit; the draw against its probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from dsvl_cli.engine.generation.sampling import Sampler, choose_all, draw, keep_top_p
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.errors import DsvlError

FULL_SIZE = 102_400


def reference(params: SamplingParams, ids: list[int], logits: torch.Tensor) -> torch.Tensor:
    """The scores that transformers draws from."""
    processors = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature != 0.0:
        if params.temperature != 1.0:
            processors.append(TemperatureLogitsWarper(params.temperature))
        if params.top_k > 0:
            processors.append(TopKLogitsWarper(params.top_k))
        if params.top_p < 1.0:
            processors.append(TopPLogitsWarper(params.top_p))
        if params.min_p > 0.0:
            processors.append(MinPLogitsWarper(params.min_p))
    rows: Any = torch.tensor([ids], dtype=torch.long)
    scores: torch.Tensor = processors(rows, logits[None])[0]
    return scores


def assert_same(scores: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal bit for bit; which of several equal scores at the border stay is transformers' sort's whim."""
    assert torch.equal(scores.sort().values, expected.sort().values)
    differing = torch.maximum(scores, expected)[scores != expected]
    assert len(differing) == 0 or bool((differing == expected[expected.isfinite()].min()).all())


def random_logits(size: int, seed: int, grain: float) -> torch.Tensor:
    """Normal logits; a grain above 0 rounds them to its multiples, so that many are equal."""
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3
    return (logits / grain).round() * grain if grain else logits


settings = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1.0, 0.3, 0.7, 1.9]),
    top_k=st.sampled_from([0, 1, 7, 50, 10**6]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-3]) | st.floats(0.0, 1.0, exclude_min=True),
    min_p=st.sampled_from([0.0, 0.05, 0.9, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8, 5.0]),
)


@given(
    params=settings,
    size=st.integers(1, 400),
    seed=st.integers(0, 2**32),
    grain=st.sampled_from([0.0, 0.5, 4.0]),
    prompt=st.lists(st.integers(0, 450), max_size=30),
)
def test_scores_are_those_of_transformers(
    params: SamplingParams, size: int, seed: int, grain: float, prompt: list[int]
) -> None:
    logits = random_logits(size, seed, grain)
    before = logits.clone()
    sampler = Sampler(params, tuple(prompt[:20]))
    for token_id in prompt[20:]:
        sampler.accept(token_id)
    assert_same(sampler.score(logits), reference(params, prompt, logits))
    assert torch.equal(logits, before)


@pytest.mark.parametrize("grain", [0.0, 0.25])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.7, top_p=0.9),
        SamplingParams(temperature=1.0, top_k=50, top_p=0.9, repetition_penalty=1.1),
        SamplingParams(temperature=1.2, top_p=0.99, min_p=0.02),
    ],
)
def test_scores_are_those_of_transformers_at_full_size(params: SamplingParams, grain: float) -> None:
    logits = random_logits(FULL_SIZE, 5, grain)
    ids = list(range(100, 700))
    scores = Sampler(params, tuple(ids)).score(logits)
    assert_same(scores, reference(params, ids, logits))
    assert 1 <= scores.isfinite().sum() < FULL_SIZE


@pytest.mark.parametrize("temperature", [1e-5, 1e-7, 1e-39, 5e-324])
@pytest.mark.parametrize("penalty", [1.0, 1e-5, 1e-39, 5e-324])
@pytest.mark.parametrize("others", [{}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.5}])
def test_next_to_zero_the_likeliest_token_is_drawn(
    temperature: float, penalty: float, others: dict[str, float]
) -> None:
    logits = random_logits(300, 6, 0.0)
    logits[0] = 0.0
    ids = (0, 7, 8, 9)
    params = SamplingParams(temperature=temperature, repetition_penalty=penalty, seed=1, **others)  # type: ignore[arg-type]
    chosen = Sampler(params, ids).choose(logits)
    if penalty == 1.0:
        assert chosen == int(logits.argmax())
    else:
        assert chosen in [i for i in ids if logits[i] > 0], "a reward without end"


def test_of_equal_scores_the_later_ids_stay() -> None:
    assert keep_top_p(torch.tensor([1.0, 1.0, 9.0, 1.0, 1.0]).log(), 0.8).isfinite().tolist() == [0, 0, 1, 1, 1]
    assert keep_top_p(torch.ones(4), 0.4).isfinite().tolist() == [0, 0, 1, 1]


def test_draws_follow_the_probabilities() -> None:
    scores = torch.tensor([-torch.inf, 1.0, -torch.inf, 2.0, 0.0, -torch.inf])
    generator = torch.Generator().manual_seed(0)
    count = 20_000
    drawn = torch.bincount(torch.tensor([draw(scores, generator) for _ in range(count)]), minlength=6)
    assert torch.equal(drawn > 0, scores.isfinite())
    assert torch.allclose(drawn / count, scores.softmax(-1), atol=0.015)


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_ends_of_the_range_are_tokens_that_may_be_chosen(number: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.tensor([number], dtype=torch.float64))
    scores = torch.full((FULL_SIZE,), -torch.inf)
    scores[1000:2000] = random_logits(1000, 3, 0.0)
    assert draw(scores, torch.Generator()) == (1000 if number == 0.0 else 1999)


def test_a_seed_repeats_and_rows_do_not_touch_each_other() -> None:
    logits = random_logits(3 * 500, 1, 0.0).view(3, 500)
    params = SamplingParams(temperature=1.0, seed=4, top_k=40, repetition_penalty=1.2)

    def samplers() -> list[Sampler]:
        return [Sampler(replace(params, seed=seed), (1, 2, 3)) for seed in (4, 5, 4)]

    together = samplers()
    first = [choose_all(together, logits) for _ in range(8)]
    alone = samplers()
    assert [[sampler.choose(row) for sampler, row in zip(alone, logits, strict=True)]] == first[:1]
    again = samplers()
    assert [choose_all(again, logits) for _ in range(8)] == first
    assert len({tuple(row) for row in first}) > 1


def test_the_plain_rows_are_the_likeliest_tokens() -> None:
    logits = random_logits(2 * 300, 2, 0.0).view(2, 300)
    plain = [Sampler(SamplingParams(), (1,)), Sampler(SamplingParams(), ())]
    assert all(sampler.is_plain for sampler in plain)
    assert choose_all(plain, logits) == logits.argmax(-1).tolist()
    assert not Sampler(SamplingParams(repetition_penalty=1.1), ()).is_plain


@pytest.mark.fault("weights that are not numbers")
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=1.0, top_p=0.9)])
def test_logits_that_are_no_numbers_are_no_answer(params: SamplingParams, wrong: float) -> None:
    logits = torch.zeros(2, 50)
    logits[1, 7] = wrong
    with pytest.raises(DsvlError, match="computes no numbers"):
        choose_all([Sampler(params, ()), Sampler(params, ())], logits)


def test_a_banned_token_is_not_chosen_however_likely_it_is() -> None:
    logits = torch.zeros(1, 50)
    logits[0, 7], logits[0, 8] = 9.0, 8.0
    banned = torch.tensor([7])
    for params in (SamplingParams(), SamplingParams(temperature=0.1, seed=1), SamplingParams(repetition_penalty=1.1)):
        assert choose_all([Sampler(params, (), banned)], logits.clone()) == [8]

"""How far several answers disagree, and which of them stands for all."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.constraints import JsonSchema
from dsvl_cli.engine.conversation import Reply, Stats
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.samples import (
    draw_samples,
    list_samplings,
    measure_entropy,
    measure_overlap,
    read_samples,
    samples_from_fields,
    samples_to_fields,
)
from dsvl_cli.errors import InvalidAnswer

WARM = SamplingParams(temperature=0.7, seed=3)
ANYTHING = JsonSchema("{}")
WORDS = st.lists(st.sampled_from(["a", "red", "Red", "circle.", "on", "white", "?", "赤い"]), max_size=6).map(" ".join)


def reply(text: str, reason: Any = "stop") -> Reply:
    return Reply(text, (), reason, Stats(10, 0, 0.1, 3, 0.1))


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("A red circle.", "a RED circle", 1.0),
        ("a red circle", "a blue circle", 2 / 3),
        ("a a b", "a b b", 2 / 3),
        ("red", "blue", 0.0),
        ("red", "a red circle on white", 2 * 1 / 6),
        ("", "", 1.0),
        ("", "red", 0.0),
        ("?!", "?!", 1.0),
        ("?!", "...", 0.0),
        ("红色圆", "红色方", 2 / 3),
        ("42.", "43.", 0.0),
    ],
)
def test_the_overlap_of_texts_counts_their_words(one: str, other: str, overlap: float) -> None:
    assert measure_overlap(one, other) == measure_overlap(other, one) == pytest.approx(overlap)


@given(st.lists(WORDS, min_size=2, max_size=6))
def test_texts_disagree_by_the_mean_of_their_pairs_and_the_nearest_to_all_stands_for_them(texts: list[str]) -> None:
    samples = read_samples([reply(text) for text in texts], None)
    pairs = [measure_overlap(*pair) for pair in combinations(texts, 2)]
    assert samples.disagreement == pytest.approx(1 - sum(pairs) / len(pairs), abs=1e-4)
    nearness = [
        sum(measure_overlap(text, other) for i, other in enumerate(texts) if i != index)
        for index, text in enumerate(texts)
    ]
    assert nearness[samples.best] == pytest.approx(max(nearness))
    assert [sample.result for sample in samples.each] == texts


@pytest.mark.parametrize(
    ("texts", "best", "disagreement"),
    [
        (['{"a": 1, "b": 2}', '{"b": 2, "a": 1.0}', '{"a":1,"b":2}'], 0, 0.0),
        (["1", "true", "1.0"], 0, -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(3)),
        (['"1"', "1", "null", "[1]"], 0, 1.0),
        (["[1, 2]", "[2, 1]", "[2, 1]", "0"], 1, None),
        (["3", "4", "4", "3"], 0, 0.5),
        (["false", "0"], 0, 1.0),
    ],
)
def test_json_is_compared_by_value_and_the_most_frequent_stands_for_all(
    texts: list[str], best: int, disagreement: float | None
) -> None:
    samples = read_samples([reply(text) for text in texts], ANYTHING)
    assert samples.best == best
    if disagreement is not None:
        assert samples.disagreement == pytest.approx(disagreement, abs=1e-4)
    assert [sample.result for sample in samples.each] == [json.loads(text) for text in texts]


def test_a_sample_that_is_not_valid_is_like_no_other_and_never_stands_for_all() -> None:
    schema = JsonSchema('{"type": "integer"}')
    cut = reply("1", "length")
    samples = read_samples([cut, cut, cut, reply("7")], schema)
    assert samples.best == 3
    assert samples.disagreement == 1
    assert [sample.result for sample in samples.each] == [None, None, None, 7]
    assert all(sample.error and "cut" in sample.error for sample in samples.each[:3])
    with pytest.raises(InvalidAnswer, match="none of 2 samples is valid: the answer was cut"):
        read_samples([cut, cut], schema)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=20))
def test_the_entropy_is_between_none_and_all_different(keys: list[int]) -> None:
    found = measure_entropy(keys)
    assert 0 <= found <= 1
    assert (found == 0) == (len(set(keys)) == 1)
    assert (found == 1) == (len(set(keys)) == len(keys))
    assert found == measure_entropy(sorted(keys))


def test_choices_are_drawn_by_their_probabilities_at_the_temperature() -> None:
    chances = {"red": 0.6, "green": 0.3, "blue": 0.1, "never": 0.0}
    for temperature in (0.5, 1.0, 2.0):
        sampling = replace(WARM, temperature=temperature)
        drawn = draw_samples("red", chances, sampling, 4000)
        weights = {name: chance ** (1 / temperature) for name, chance in chances.items()}
        counts = Counter(sample.text for sample in drawn.each)
        for name, weight in weights.items():
            assert counts[name] / 4000 == pytest.approx(weight / sum(weights.values()), abs=0.03)
        assert drawn == draw_samples("red", chances, sampling, 4000)
        assert drawn.each[5].text == draw_samples("red", chances, replace(sampling, seed=8), 1).each[0].text
    assert {sample.text for sample in draw_samples("red", chances, SamplingParams(), 9).each} == {"red"}


def test_each_sample_has_a_seed_of_its_own_within_the_bounds() -> None:
    assert [params.seed for params in list_samplings(WARM, 3)] == [3, 4, 5]
    assert [params.seed for params in list_samplings(replace(WARM, seed=2**63 - 1), 2)] == [2**63 - 1, 0]
    assert list_samplings(replace(WARM, seed=None), 2) == [replace(WARM, seed=None)] * 2


@pytest.mark.parametrize(
    ("replies", "schema"),
    [
        ([reply("a"), reply("b", "length")], None),
        ([reply("1"), reply("null")], ANYTHING),
        ([reply('"a"'), reply('"', "length")], ANYTHING),
    ],
)
def test_samples_are_read_back_as_they_were(replies: list[Reply], schema: JsonSchema | None) -> None:
    samples = read_samples(replies, schema).each
    fields = json.loads(json.dumps(samples_to_fields(samples)))
    assert samples_from_fields(fields["samples"], fields["sample_details"]) == samples


def test_drawn_samples_are_read_back_as_they_were() -> None:
    samples = draw_samples("x", {"x": 0.5, "y": 0.5}, WARM, 3).each
    fields = samples_to_fields(samples)
    assert set(fields) == {"samples"}
    assert samples_from_fields(fields["samples"], None) == samples


@pytest.mark.parametrize(("results", "details"), [("ab", None), (["a"], []), (["a"], [{}]), (3, None)])
def test_what_is_no_list_of_samples_is_refused(results: Any, details: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        samples_from_fields(results, details)

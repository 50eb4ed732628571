"""Many requests at a time: the same answers as alone, errors one by one, and less at a time when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from dsvl_cli.engine.conversation import Conversation, Message, Picture, Reply, Request
from dsvl_cli.engine.generation.batching import LARGEST_BATCH, choose_batch_size
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.network.kv_cache import KVCache
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.errors import ImageError, MemoryShortage
from tests.pictures import draw_picture

SHORT = SamplingParams(max_new_tokens=12)
QUESTIONS = ("Describe this image.", "What colour is it?", "How many shapes are there?")


def ask(seed: int, text: str = QUESTIONS[0], sampling: SamplingParams = SHORT) -> Request:
    return Request((seed, text), Conversation([Message("user", (draw_picture(seed), text))]), sampling)


def alone(model: VisionLanguageModel, request: Request) -> Reply:
    model.forget()
    return Reply.of(model.stream(request.conversation, request.sampling))


def requests() -> list[Request]:
    varied = SamplingParams(max_new_tokens=9, temperature=2.0, seed=4)
    return [ask(seed, text, varied if seed % 4 == 1 else SHORT) for seed in range(6) for text in QUESTIONS]


@pytest.mark.parametrize("size", [1, 3, 16])
def test_answers_are_those_of_each_alone(tiny: VisionLanguageModel, size: int) -> None:
    wanted = {request.key: alone(tiny, request) for request in requests()}
    outcomes = list(tiny.answer_all(requests(), size))
    assert len(outcomes) == len(wanted)
    for outcome in outcomes:
        assert outcome.reply is not None
        assert outcome.reply.token_ids == wanted[outcome.key].token_ids
        assert outcome.reply.finish_reason == wanted[outcome.key].finish_reason


def test_a_picture_is_prefilled_once_for_all_its_questions(tiny: VisionLanguageModel) -> None:
    stats = [
        outcome.reply.stats for outcome in tiny.answer_all([ask(1, text) for text in QUESTIONS], 2) if outcome.reply
    ]
    cached = sorted(one.cached_tokens for one in stats if one is not None)
    assert cached[0] == 0
    assert cached[1] > tiny.image_tokens()


def test_requests_are_taken_as_there_is_room(tiny: VisionLanguageModel) -> None:
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        while True:
            taken += 1
            yield ask(taken)

    outcomes = tiny.answer_all(endless(), 2)
    for _ in range(5):
        assert next(outcomes).reply is not None
    assert taken <= 5 + 2
    outcomes.close()  # type: ignore[attr-defined]


def test_one_that_fails_does_not_end_the_others(tiny: VisionLanguageModel) -> None:
    broken = Picture("broken.png", b"no picture", "0" * 64, 1, 1)
    bad = Request("bad", Conversation([Message("user", (broken, "What is it?"))]), SHORT)
    long = Request("long", Conversation([Message("user", ("word " * 9000,))]), SHORT)
    outcomes = {outcome.key: outcome for outcome in tiny.answer_all([ask(1), bad, long, ask(2)], 3)}
    assert "broken.png" in str(outcomes["bad"].error)
    assert "tokens" in str(outcomes["long"].error)
    assert sum(outcome.reply is not None for outcome in outcomes.values()) == 2


@pytest.mark.parametrize("place", [0, 1, 2])
def test_any_of_several_pictures_may_be_the_one_that_fails(tiny: VisionLanguageModel, place: int) -> None:
    pictures = [draw_picture(seed) for seed in range(3)]
    pictures[place] = Picture("broken.png", b"no picture", "0" * 64, 1, 1)
    bad = Request("bad", Conversation([Message("user", (*pictures, "What is it?"))]), SHORT)
    outcomes = {outcome.key: outcome for outcome in tiny.answer_all([ask(1), bad, ask(2)], 3)}
    assert isinstance(outcomes["bad"].error, ImageError)
    assert "broken.png" in outcomes["bad"].error.message
    for good in (ask(1), ask(2)):
        assert outcomes[good.key].reply is not None


def test_without_a_picture_it_answers_the_text(tiny: VisionLanguageModel) -> None:
    plain = Request("plain", Conversation([Message("user", ("Hello",))]), SHORT)
    empty = Request("empty", Conversation([Message("user", ())]), SHORT)
    wanted = {request.key: alone(tiny, request).token_ids for request in (ask(1), plain, empty)}
    outcomes = list(tiny.answer_all([ask(1), plain, empty], 3))
    assert {outcome.key: outcome.reply and outcome.reply.token_ids for outcome in outcomes} == wanted


class ShortOfMemory:
    """Fails as an allocator does while more than so many sequences are computed at once."""

    def __init__(self, model: VisionLanguageModel, bearable: int) -> None:
        self.step = model.network.step
        self.bearable = bearable
        self.largest = 0

    def __call__(self, token_ids: Sequence[int], caches: Sequence[KVCache]) -> torch.Tensor:
        if len(caches) > self.bearable:
            raise MemoryError
        self.largest = max(self.largest, len(caches))
        return self.step(token_ids, caches)


def test_without_memory_the_batch_is_halved(tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {request.key: alone(tiny, request).token_ids for request in requests()}
    short = ShortOfMemory(tiny, 3)
    monkeypatch.setattr(tiny.network, "step", short)
    outcomes = list(tiny.answer_all(requests(), 12))
    assert {outcome.key: outcome.reply and outcome.reply.token_ids for outcome in outcomes} == wanted
    assert short.largest == 3


def test_a_picture_that_never_fits_gets_an_error(tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.network, "step", ShortOfMemory(tiny, 0))
    outcomes = list(tiny.answer_all([ask(1), ask(2), ask(3)], 2))
    assert [outcome.key for outcome in outcomes] == [ask(1).key, ask(2).key, ask(3).key]
    assert all(isinstance(outcome.error, MemoryShortage) for outcome in outcomes)


def test_other_errors_surface(tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("something else")

    monkeypatch.setattr(tiny.network, "step", fail)
    with pytest.raises(RuntimeError, match="something else"):
        list(tiny.answer_all([ask(1)], 2))


def test_the_size_follows_from_the_memory() -> None:
    assert choose_batch_size(8 * 10**9, 200_000, 1000) == LARGEST_BATCH
    assert choose_batch_size(10**9, 200_000, 1000) == 2
    assert choose_batch_size(0, 200_000, 1000) == 1

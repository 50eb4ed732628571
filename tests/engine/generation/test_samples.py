"""Several answers to one prompt: it is computed once, and each answer is what it would be alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dsvl_cli.engine.constraints import JsonSchema
from dsvl_cli.engine.conversation import Chunk, Conversation, Message, Reply, Request
from dsvl_cli.engine.generation.prefix_store import PrefixStore
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.samples import list_samplings
from dsvl_cli.engine.storage.cache_folder import BoundedFolder
from dsvl_cli.errors import ContextOverflow, MemoryShortage
from tests.listeners import Ear
from tests.pictures import draw_picture

WARM = SamplingParams(max_new_tokens=12, temperature=3.0, seed=5)
COUNT = JsonSchema('{"type": "object", "properties": {"n": {"type": "integer", "maximum": 99, "minimum": 0}}}')


def ask(seed: int = 1, text: str = "Describe this image.") -> Conversation:
    return Conversation([Message("user", (draw_picture(seed), text))])


def sample(model: VisionLanguageModel, talk: Conversation, count: int, sampling: SamplingParams = WARM) -> list[Reply]:
    received: list[list[Chunk]] = [[] for _ in range(count)]
    for index, chunk in model.stream_samples(talk, list_samplings(sampling, count)):
        received[index].append(chunk)
    return [Reply.of(chunks) for chunks in received]


@pytest.fixture
def work(tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many tokens each prefill computed, and how many rows each step."""
    found: dict[str, list[int]] = {"prefill": [], "step": []}
    prefill, step = tiny.network.prefill, tiny.network.step

    def count_prefill(prompt, cache, *more):  # type: ignore[no-untyped-def]
        found["prefill"].append(len(prompt) - cache.length)
        return prefill(prompt, cache, *more)

    def count_step(token_ids, caches):  # type: ignore[no-untyped-def]
        found["step"].append(len(caches))
        return step(token_ids, caches)

    monkeypatch.setattr(tiny.network, "prefill", count_prefill)
    monkeypatch.setattr(tiny.network, "step", count_step)
    tiny.forget()
    return found


def test_the_prompt_is_computed_once_and_the_answers_together(
    tiny: VisionLanguageModel, work: dict[str, list[int]]
) -> None:
    replies = sample(tiny, ask(), 5)
    length = tiny.count_tokens(ask())
    assert work["prefill"] == [length]
    assert [reply.stats.cached_tokens for reply in replies if reply.stats] == [0, *[length] * 4]
    assert work["step"][0] == 5
    assert len(work["step"]) == max(reply.stats.generated_tokens for reply in replies if reply.stats) - 1
    assert len({reply.text for reply in replies}) > 1


@pytest.mark.parametrize("constraint", [None, COUNT], ids=["text", "schema"])
def test_each_sample_is_what_its_seed_answers_alone(tiny: VisionLanguageModel, constraint: JsonSchema | None) -> None:
    sampling = replace(WARM, constraint=constraint, max_new_tokens=20)
    together = sample(tiny, ask(), 4, sampling)
    alone = [Reply.of(tiny.stream(ask(), params)) for params in list_samplings(sampling, 4)]
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]


def test_a_further_question_about_the_picture_goes_on_behind_it(
    tiny: VisionLanguageModel, work: dict[str, list[int]]
) -> None:
    sample(tiny, ask(), 2)
    sample(tiny, ask(text="Is there a circle?"), 2)
    Reply.of(tiny.stream(ask(text="Is there a circle?"), replace(WARM, max_new_tokens=1)))
    assert work["prefill"][0] == tiny.count_tokens(ask())
    assert work["prefill"][1] < tiny.count_tokens(ask()) - tiny.image_tokens()
    assert work["prefill"][2:] == [1]


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_samples_in_a_batch_share_their_prompt_and_do_not_depend_on_their_neighbours(
    tiny: VisionLanguageModel, work: dict[str, list[int]], size: int
) -> None:
    talks = [ask(seed) for seed in (1, 2, 3)]
    requests = [
        Request((number, index), talk, params)
        for number, talk in enumerate(talks)
        for index, params in enumerate(list_samplings(WARM, 3))
    ]
    found = {outcome.key: outcome.reply for outcome in tiny.answer_all(requests, size)}
    assert work["prefill"][0] == tiny.count_tokens(talks[0])
    assert sum(work["prefill"]) <= sum(map(tiny.count_tokens, talks))
    assert len(work["prefill"]) == 3
    for number, talk in enumerate(talks):
        alone = sample(tiny, talk, 3)
        together = [found[number, index] for index in range(3)]
        assert [reply.token_ids for reply in together if reply] == [reply.token_ids for reply in alone]


def test_a_prompt_of_an_earlier_process_is_not_computed_again(
    tiny: VisionLanguageModel, work: dict[str, list[int]], tmp_path: Path
) -> None:
    def start() -> VisionLanguageModel:
        store = PrefixStore("it", tiny.network.decoder, Ear(), BoundedFolder(tmp_path, 2**30))
        return VisionLanguageModel(tiny.checkpoint, tiny.network, tiny.format, tiny.plan, store)

    first, again = sample(start(), ask(), 3), sample(start(), ask(), 3)
    assert [reply.token_ids for reply in first] == [reply.token_ids for reply in again]
    assert work["prefill"] == [tiny.count_tokens(ask()), 1]


def test_a_prompt_that_does_not_fit_and_memory_that_runs_out_are_said(
    tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ContextOverflow):
        sample(tiny, ask(text="word " * tiny.context_length), 2)

    def run_out(*_: object) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(tiny.network, "step", run_out)
    with pytest.raises(MemoryShortage, match="for 3 answers at a time"):
        sample(tiny, ask(), 3)

"""Answers from a list: their probabilities against the sums that transformers gives for each alone."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

from dsvl_cli.engine.constraints import OneOf
from dsvl_cli.engine.conversation import Conversation, Message, Picture, Reply, Request
from dsvl_cli.engine.generation import scoring
from dsvl_cli.engine.generation.scoring import CandidateAnswers, normalize, score_answers
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.pictures.images import read_picture
from dsvl_cli.engine.text.prompt import PreparedPrompt
from dsvl_cli.errors import DsvlError
from tests.checkpoints import load_reference
from tests.pictures import draw_picture

WORDS = ("red", "reddish", "red circle", "a red circle", "A red circle on a white background.", "blue", "blu", "yes",
         "Yes.", "no", "42", "4", "round and red", "größer", "赤", "\N{LARGE RED CIRCLE}")  # fmt: skip


def ask(text: str, seed: int = 1) -> Conversation:
    return Conversation([Message("user", (draw_picture(seed), text))])


def among(*choices: str) -> SamplingParams:
    return SamplingParams(constraint=OneOf(choices))


def answer(model: VisionLanguageModel, talk: Conversation, *choices: str) -> Reply:
    return Reply.of(model.stream(talk, among(*choices)))


def score_alone(model: VisionLanguageModel, prompt: PreparedPrompt, text: str) -> float:
    """The logarithm of the probability of one answer with its end, from all its logits in transformers."""
    ids = model.format.encode(f" {text}")
    (end,) = model.end_ids
    tokens = torch.tensor([[*prompt.token_ids, *ids, end]])
    pixels = torch.cat([model.network.pixels(picture)["pixel_values"] for picture in prompt.pictures])
    with torch.inference_mode():
        logits = load_reference(model)(input_ids=tokens, pixel_values=pixels).logits[0].double()
    chances = logits.log_softmax(dim=-1)
    start = len(prompt) - 1
    return sum(float(chances[start + i, token_id]) for i, token_id in enumerate((*ids, end)))


def test_probabilities_are_those_of_transformers(tiny: VisionLanguageModel, chance: random.Random) -> None:
    for seed in range(6):
        talk = ask(chance.choice(("What colour is it?", "Describe this image.", "Is it red?")), seed)
        choices = chance.sample(WORDS, chance.randint(2, len(WORDS)))
        prompt = tiny.prepare(talk)
        expected = [score_alone(tiny, prompt, choice) for choice in choices]
        reply = answer(tiny, talk, *choices)
        assert reply.probabilities is not None
        assert list(reply.probabilities) == choices
        assert list(reply.probabilities.values()) == pytest.approx(list(normalize(expected)), rel=2e-3, abs=1e-9)
        assert sum(reply.probabilities.values()) == pytest.approx(1)
        assert reply.text == choices[expected.index(max(expected))]
        assert (reply.finish_reason, reply.token_ids) == ("stop", tuple(tiny.format.encode(f" {reply.text}")))


def test_a_long_list_is_computed_in_parts_with_the_same_result(
    tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = ask("What colour is it?")
    whole = answer(tiny, talk, *WORDS).probabilities
    monkeypatch.setattr(scoring, "_MOST_TOKENS", 3)
    parts = answer(tiny, talk, *WORDS).probabilities
    assert whole is not None
    assert parts is not None
    assert list(parts.values()) == pytest.approx(list(whole.values()), rel=1e-3)


def test_the_order_of_the_list_does_not_matter(tiny: VisionLanguageModel, chance: random.Random) -> None:
    shuffled = chance.sample(WORDS, len(WORDS))
    one, other = (answer(tiny, ask("What is it?"), *words).probabilities for words in (WORDS, shuffled))
    assert one is not None
    assert other is not None
    assert one == pytest.approx(other, rel=1e-3)


def test_the_right_colour_is_the_most_likely(tiny: VisionLanguageModel) -> None:
    """Its answers are "Red.", not "red": what it would say itself wins over what it would not."""
    talk = Conversation([Message("user", (_example("red-circle.png"), "What colour is the circle?"))])
    reply = answer(tiny, talk, "Red.", "Green.", "Blue.")
    assert reply.text == "Red."
    assert reply.probabilities is not None
    assert reply.probabilities["Red."] > 0.9


def test_the_cache_is_as_before(tiny: VisionLanguageModel) -> None:
    """A free answer after a choice is that of a fresh model; so is a turn that follows the choice."""
    greedy = SamplingParams(max_new_tokens=12)
    talk = ask("Describe this image.")
    tiny.forget()
    fresh = Reply.of(tiny.stream(talk, greedy))
    chosen = answer(tiny, talk, *WORDS)
    after = Reply.of(tiny.stream(talk, greedy))
    assert after.token_ids == fresh.token_ids
    assert after.stats is not None
    assert after.stats.cached_tokens == len(tiny.prepare(talk)) - 1
    said = Message("assistant", (chosen.text,), chosen.token_ids, tiny.fingerprint, "stop")
    turn = Conversation([*talk.messages, said, Message("user", ("What colour is it?",))])
    continued = Reply.of(tiny.stream(turn, greedy))
    tiny.forget()
    assert Reply.of(tiny.stream(turn, greedy)).token_ids == continued.token_ids


def test_a_batch_of_choices_and_free_answers_equals_single_ones(tiny: VisionLanguageModel) -> None:
    free = SamplingParams(max_new_tokens=8)
    samplings = [among("Yes.", "No."), free, among(*WORDS), free, among("Red.", "Blue.", "Green.")]
    requests = [Request(i, ask("Is it red?", i), each) for i, each in enumerate(samplings)]
    batch = {outcome.key: outcome.reply for outcome in tiny.answer_all(requests, 3)}
    for request in requests:
        alone = Reply.of(tiny.stream(request.conversation, request.sampling))
        together = batch[request.key]
        assert together is not None
        assert together.token_ids == alone.token_ids
        if alone.probabilities is not None:
            assert together.probabilities == pytest.approx(alone.probabilities, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"},
        {"quantization": "int8"},
        {"quantization": "int4"},
        {"attn_implementation": "eager", "dtype": "float32"},
    ],
    ids=str,
)
def test_every_format_scores_a_tree_as_it_scores_each_alone(options: dict[str, str]) -> None:
    model = load_model(LoadOptions(model="tiny", **options))  # type: ignore[arg-type]
    prompt = model.prepare(ask("What colour is it?"))
    cache = model.network.new_cache()
    logits = model.network.prefill(prompt, cache)[0]
    ids = tuple(tuple(model.format.encode(f" {word}")) for word in WORDS)
    together = score_answers(model.network, cache, logits, CandidateAnswers(WORDS, ids, model.end_ids))
    alone = [
        score_answers(model.network, cache, logits, CandidateAnswers((word,), (own,), model.end_ids))[0]
        for word, own in zip(WORDS, ids, strict=True)
    ]
    assert list(together) == pytest.approx(alone, rel=0.02, abs=0.2)
    assert cache.length == len(prompt)


def test_answers_that_the_model_cannot_give_are_refused(tiny: VisionLanguageModel) -> None:
    with pytest.raises(DsvlError, match="meaning of its own") as caught:
        answer(tiny, ask("What?"), "red", f"red{tiny.format.tokenizer.id_to_token(min(tiny.end_ids))}")
    assert "red" in caught.value.message
    decoder = tiny.network.decoder
    config = decoder.config
    decoder.config = replace(config, context_length=len(tiny.prepare(ask("What?"))) + 4)
    small = VisionLanguageModel(tiny.checkpoint, tiny.network, tiny.format, tiny.plan)
    try:
        with pytest.raises(DsvlError, match=r"a choice has [0-9]+ tokens, but 4 are left of the context"):
            answer(small, ask("What?"), "red", "a long answer that has many, many more words than four")
    finally:
        decoder.config = config


def test_damaged_weights_give_no_probabilities(tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.network.decoder, "norm", tiny.network.decoder.norm * math.nan)
    monkeypatch.setattr(tiny.network.decoder, "_native_step", None)
    tiny.forget()
    with pytest.raises(DsvlError, match="weights are damaged"):
        answer(tiny, ask("What?"), "red", "blue")
    tiny.forget()


def _example(name: str) -> Picture:
    return read_picture(f"examples/{name}")

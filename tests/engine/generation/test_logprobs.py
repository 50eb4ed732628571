"""Log probabilities of tokens: against those of transformers, and as parts of exactly the text of the answer."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.schema_examples import COLOUR, COUNT, record
from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.constraints import OneOf
from dsvl_cli.engine.conversation import Conversation, Message, Reply, Request, TokenLogprob
from dsvl_cli.engine.generation.grammar import Matcher
from dsvl_cli.engine.generation.logprobs import LogprobRecorder
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.schemas import check_schema
from dsvl_cli.engine.text.detokenizer import Answer
from dsvl_cli.engine.text.token_bytes import TokenBytes
from dsvl_cli.engine.text.tokenizer import read_tokenizer
from dsvl_cli.errors import UsageError
from tests.checkpoints import load_reference
from tests.pictures import draw_picture

PROMPTS = ("What colour is it?", "Describe this image.", "Is it red?", "Say größer 🦔.")
CHOICES = ("red", "reddish", "red circle", "Red.", "no", "größer")


def ask(text: str = "Describe this image.", seed: int = 1) -> Conversation:
    return Conversation([Message("user", (draw_picture(seed), text))])


def answer(model: VisionLanguageModel, talk: Conversation, sampling: SamplingParams) -> Reply:
    return Reply.of(model.stream(talk, sampling))


def logits_of_transformers(model: VisionLanguageModel, talk: Conversation, reply: Reply) -> torch.Tensor:
    """The logits of each token of the answer, from all its tokens at once."""
    prompt = model.prepare(talk)
    tokens = torch.tensor([[*prompt.token_ids, *reply.token_ids]])
    pixels = torch.cat([model.network.pixels(picture)["pixel_values"] for picture in prompt.pictures])
    with torch.inference_mode():
        logits: torch.Tensor = load_reference(model)(input_ids=tokens, pixel_values=pixels).logits[0].float()
    return logits[len(prompt) - 1 : -1].clone()


def texts_of(logprobs: tuple[TokenLogprob, ...]) -> bytes:
    return b"".join(token.utf8 or b"" for token in logprobs)


def compare(model: VisionLanguageModel, reply: Reply, chances: torch.Tensor, offered: torch.Tensor, count: int) -> None:
    """Compare with log probabilities `(tokens, vocabulary)`, of which `offered` leaves out what is never shown."""
    assert reply.logprobs is not None
    assert len(reply.logprobs) == len(reply.token_ids)
    for position, (token, token_id) in enumerate(zip(reply.logprobs, reply.token_ids, strict=True)):
        assert token.logprob == pytest.approx(float(chances[position, token_id]), abs=1e-4)
        best = offered[position].topk(min(count, int(offered[position].isfinite().sum())))
        assert [each.logprob for each in token.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
        # Of neighbours that are equally likely either may come first.
        names = [model.format.tokenizer.decode([int(i)], skip_special_tokens=False) for i in best.indices]
        shown = {each.token for each in token.top_logprobs if not each.token.startswith("bytes:")}
        assert len(shown - {name.removeprefix(" ") if position == 0 else name for name in names}) <= 1


def test_they_are_those_of_transformers(tiny: VisionLanguageModel, chance: random.Random) -> None:
    """Whatever is sampled: temperature, penalties and what top-k leaves out do not change them."""
    for seed in range(6):
        talk, count = ask(chance.choice(PROMPTS), seed), chance.randrange(21)
        sampling = SamplingParams(
            10, chance.choice((0.0, 1.5)), top_k=chance.choice((0, 5)), repetition_penalty=chance.choice((1.0, 1.3)),
            seed=seed, logprobs=count,
        )  # fmt: skip
        reply = answer(tiny, talk, sampling)
        chances = logits_of_transformers(tiny, talk, reply).log_softmax(dim=-1)
        compare(tiny, reply, chances, chances.index_fill(-1, tiny._banned, -torch.inf), count)
        assert texts_of(reply.logprobs or ()).decode(errors="replace") == reply.text
        assert reply.token_ids == answer(tiny, talk, replace(sampling, logprobs=None)).token_ids


def test_under_a_schema_they_are_those_of_what_it_allows(tiny: VisionLanguageModel, chance: random.Random) -> None:
    schema = check_schema(record(colour=COLOUR, n=COUNT))
    for temperature in (0.0, 1.0):
        sampling = SamplingParams(60, temperature, seed=chance.randrange(99), constraint=schema, logprobs=5)
        reply = answer(tiny, ask(), sampling)
        chances = logits_of_transformers(tiny, ask(), reply)
        matcher: Matcher = tiny._grammars.compile(schema)
        for row, token_id in zip(chances, reply.token_ids, strict=True):
            matcher.mask(row)
            matcher.accept(token_id)
        chances = chances.log_softmax(dim=-1)
        compare(tiny, reply, chances, chances, 5)
        assert texts_of(reply.logprobs or ()).decode() == reply.text


def test_of_a_list_they_are_those_of_its_answers(tiny: VisionLanguageModel, chance: random.Random) -> None:
    """With that of the end, their sum is the logarithm of the answer's probability."""
    ends = {tiny.format.tokenizer.id_to_token(token_id) for token_id in tiny.end_ids}
    for _ in range(4):
        choices = tuple(chance.sample(CHOICES, chance.randint(2, len(CHOICES))))
        sampling = SamplingParams(constraint=OneOf(choices), logprobs=20)
        reply = answer(tiny, ask(chance.choice(PROMPTS)), sampling)
        assert reply.logprobs is not None
        assert reply.probabilities is not None
        assert texts_of(reply.logprobs).decode() == reply.text
        begun = {choice: chance for choice, chance in reply.probabilities.items() if choice.startswith(reply.text)}
        total = sum(token.logprob for token in reply.logprobs)
        assert total == pytest.approx(math.log(sum(begun.values())), abs=1e-6)
        for token in reply.logprobs:
            others = token.top_logprobs
            assert sum(math.exp(other.logprob) for other in others) == pytest.approx(1)
            assert (token.token, token.logprob) in [(other.token, other.logprob) for other in others]
            assert all(other.utf8 is not None or other.token in ends for other in others)


def test_a_batch_equals_single_answers(tiny: VisionLanguageModel) -> None:
    schema = check_schema(record(n=COUNT))
    samplings = [
        SamplingParams(12, logprobs=3),
        SamplingParams(12),
        SamplingParams(12, 1.0, seed=1, logprobs=0),
        SamplingParams(40, constraint=schema, logprobs=20),
        SamplingParams(constraint=OneOf(CHOICES), logprobs=1),
        SamplingParams(constraint=OneOf(CHOICES)),
    ]
    requests = [Request(i, ask(seed=i), each) for i, each in enumerate(samplings)]
    batch = {outcome.key: outcome.reply for outcome in tiny.answer_all(requests, 4)}
    for request in requests:
        together, alone = batch[request.key], answer(tiny, request.conversation, request.sampling)
        assert together is not None
        if request.sampling.logprobs is None:
            assert together.logprobs is alone.logprobs is None
            continue
        assert together.logprobs is not None
        assert alone.logprobs is not None
        assert [token.token for token in together.logprobs] == [token.token for token in alone.logprobs]
        for one, other in zip(together.logprobs, alone.logprobs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            values = [[each.logprob for each in token.top_logprobs] for token in (one, other)]
            assert values[0] == pytest.approx(values[1], abs=1e-3)


def test_an_answer_cut_at_a_stop_string_or_the_limit(tiny: VisionLanguageModel, chance: random.Random) -> None:
    whole = answer(tiny, ask(), SamplingParams(20)).text
    for _ in range(8):
        start = chance.randrange(len(whole))
        stop = whole[start : start + chance.randint(1, 6)]
        reply = answer(tiny, ask(), SamplingParams(20, stop=(stop,), logprobs=2))
        assert reply.logprobs is not None
        assert reply.text == whole[: whole.index(stop)]
        assert texts_of(reply.logprobs).decode() == reply.text
        assert all(token.utf8 for token in reply.logprobs)
    for tokens in range(1, 6):
        reply = answer(tiny, ask(), SamplingParams(tokens, logprobs=0))
        assert reply.finish_reason == "length"
        assert len(reply.logprobs or ()) == tokens
        assert texts_of(reply.logprobs or ()).decode() == reply.text


@given(st.text(max_size=20), st.text(min_size=1, max_size=3), st.integers(1, 30))
def test_tokens_join_to_the_text_whatever_it_is(text: str, stop: str, limit: int) -> None:
    check_join(text, stop, limit)


@pytest.mark.parametrize("stop", ["🦔", "b", " ", "🦔b", "é"])
def test_characters_in_parts(stop: str) -> None:
    for limit in range(1, 12):
        check_join("a 🦔b é🦔", stop, limit)


def check_join(text: str, stop: str, limit: int) -> None:
    tokenizer = read_tokenizer(EMBEDDED_FOLDER / "tokenizer.json")
    tokenizer.encode_special_tokens = True
    end = tokenizer.token_to_id("<｜end▁of▁sentence｜>") or 0
    recorder = LogprobRecorder(1, TokenBytes(tokenizer, {end}), frozenset({end}), strip_space=True)
    cutter = Answer(tokenizer, frozenset({end}), (stop,), limit, strip_space=True)
    shown = ""
    for token_id in (*tokenizer.encode(f" {text}", add_special_tokens=False).ids, end):
        logits = torch.zeros(tokenizer.get_vocab_size())
        recorder.see(logits)
        recorder.record(token_id, logits)
        piece = cutter.add(token_id)
        recorder.add_text(piece.text)
        shown += piece.text
        if piece.finish_reason is not None:
            break
    found = recorder.finish()
    assert texts_of(found).decode(errors="replace") == shown
    for token in found:
        assert token.utf8 is not None
        parts = "".join(rf"\x{byte:02x}" for byte in token.utf8)
        assert token.token in (token.utf8.decode(errors="replace"), f"bytes:{parts}")
        assert token.logprob == pytest.approx(-math.log(tokenizer.get_vocab_size()))


def test_nothing_is_computed_unless_asked_for(tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("somebody asked for log probabilities")

    monkeypatch.setattr(LogprobRecorder, "__init__", fail)
    monkeypatch.setattr(torch.Tensor, "log_softmax", fail)
    monkeypatch.setattr(torch.Tensor, "logsumexp", fail)
    assert answer(tiny, ask(), SamplingParams(6)).logprobs is None


@pytest.mark.parametrize("count", [-1, 21])
def test_how_many_alternatives_there_may_be(count: int) -> None:
    with pytest.raises(UsageError, match=f"logprobs is {count}; it must be between 0 and 20"):
        SamplingParams(logprobs=count)

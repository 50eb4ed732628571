"""Answers under a schema: always valid, alone and in batches, greedy and sampled, and ended by the model's own wish."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import torch

from benchmarks.schema_examples import COLOUR, COUNT, SCHEMAS, TEXT, record
from dsvl_cli.engine.constraints import JsonSchema
from dsvl_cli.engine.conversation import Conversation, Message, Reply, Request
from dsvl_cli.engine.generation.grammar import ClosingTokens, GrammarCompiler, Matcher
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.schemas import check_schema, read_value
from dsvl_cli.errors import DsvlError, InvalidAnswer
from tests.pictures import draw_picture


def ask(text: str = "What is in the picture?", seed: int = 1) -> Conversation:
    return Conversation([Message("user", (draw_picture(seed), text))])


def under(schema: JsonSchema, temperature: float = 0.0, seed: int = 1, tokens: int = 300) -> SamplingParams:
    return SamplingParams(tokens, temperature, seed=seed, constraint=schema)


def answer(model: VisionLanguageModel, sampling: SamplingParams) -> Reply:
    return Reply.of(model.stream(ask(), sampling))


@pytest.mark.parametrize(
    "count", [12, pytest.param(len(SCHEMAS), marks=pytest.mark.soak)], ids=["a sample", "every schema"]
)
def test_every_answer_is_valid(tiny: VisionLanguageModel, count: int, chance: random.Random) -> None:
    for schema in chance.sample(SCHEMAS, count):
        checked = check_schema(schema)
        for temperature in (0.0, 1.0):
            reply = answer(tiny, under(checked, temperature, chance.randrange(1000)))
            if reply.finish_reason == "length":  # an endless string is cut, and the caller is told
                continue
            value = json.loads(reply.text)
            jsonschema.validate(value, schema)
            assert read_value(checked, reply.text, reply.finish_reason) == value


def test_a_batch_equals_single_answers(tiny: VisionLanguageModel) -> None:
    schemas = [check_schema(schema) for schema in (record(colour=COLOUR, n=COUNT), record(text=TEXT), record(n=COUNT))]
    samplings = [under(schema, temperature, seed=4, tokens=60) for schema in schemas for temperature in (0.0, 1.0)]
    requests = [Request(i, ask(seed=i), each) for i, each in enumerate([*samplings, SamplingParams(20)])]
    batch = {outcome.key: outcome.reply for outcome in tiny.answer_all(requests, 4)}
    for request in requests:
        together = batch[request.key]
        assert together is not None
        assert together.token_ids == Reply.of(tiny.stream(request.conversation, request.sampling)).token_ids


def test_every_sampling_setting_keeps_the_schema(tiny: VisionLanguageModel) -> None:
    schema = check_schema(record(colour=COLOUR, n=COUNT, sure={"type": "boolean"}))
    base = under(schema, 2.0)
    for change in ({"top_k": 1}, {"top_p": 0.3}, {"min_p": 0.9}, {"repetition_penalty": 5.0}, {"temperature": 100.0}):
        reply = answer(tiny, replace(base, **change))
        jsonschema.validate(json.loads(reply.text), schema.value)


def test_the_model_may_end_a_text_where_its_sentence_ends(tiny: VisionLanguageModel) -> None:
    """Its wish to end, which JSON does not allow inside of a string, closes the string."""
    reply = answer(tiny, under(check_schema(record(text=TEXT)), tokens=100))
    assert reply.finish_reason == "stop"
    assert 0 < len(json.loads(reply.text)["text"]) < 100


def test_what_closes_depends_on_what_is_open(tiny: VisionLanguageModel) -> None:
    tokenizer = tiny.format.tokenizer
    closing, vocabulary = ClosingTokens(tokenizer), tokenizer.get_vocab_size()
    quote, bracket, brace, *letters = (int(tokenizer.token_to_id(text) or -1) for text in '"]}ex')

    def find(*allowed: int, last: int | None = None) -> list[int]:
        mask = torch.zeros(vocabulary, dtype=torch.bool)
        mask[list(allowed)] = True
        return closing.find(mask.numpy(), last)

    assert find(quote, bracket, brace, *letters) == [quote]  # text, in which brackets mean nothing
    assert find(quote, *letters, last=quote) == []  # nothing in it yet
    assert find(quote, bracket) == [bracket]  # an array in which a text may follow
    assert find(bracket, brace) == [bracket, brace]
    assert find(letters[0]) == []


def test_the_end_of_a_sentence_becomes_the_end_of_the_string(tiny: VisionLanguageModel) -> None:
    compiler = GrammarCompiler(tiny.format.tokenizer, tiny.network.decoder.config.vocab_size, tiny.end_ids, "")
    matcher = compiler.compile(check_schema(record(text=TEXT)))
    for token_id in tiny.format.encode('{"text": "Red'):
        matcher.accept(token_id)
    logits = torch.zeros(tiny.network.decoder.config.vocab_size)
    (end,) = tiny.end_ids
    logits[end] = 20.0
    matcher.mask(logits)
    assert tiny.format.tokenizer.id_to_token(int(logits.argmax())) == '"'
    assert logits[end] == -torch.inf
    for token_id in tiny.format.encode('"}'):
        matcher.accept(token_id)
    logits = torch.zeros(tiny.network.decoder.config.vocab_size)
    matcher.mask(logits)
    assert logits.isfinite().nonzero().flatten().tolist() == [end]


def test_a_grammar_is_compiled_once(tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[JsonSchema] = []
    compile_one = GrammarCompiler._compile

    def count(self: GrammarCompiler, schema: JsonSchema) -> object:
        compiled.append(schema)
        return compile_one(self, schema)

    monkeypatch.setattr(GrammarCompiler, "_compile", count)
    model = VisionLanguageModel(tiny.checkpoint, tiny.network, tiny.format, tiny.plan)
    schema = check_schema(record(colour=COLOUR))
    replies = {answer(model, under(schema, 1.0, seed)).text for seed in range(6)}
    assert len(replies) > 1  # copies do not share what was accepted
    assert compiled == [schema]


def test_a_grammar_that_is_lost_ends_its_own_answer_alone(
    tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a limit of llguidance is reached in the middle of an answer."""

    class Limited:
        def __init__(self, state: Any) -> None:
            self.state, self.left = state, 5

        def consume_token(self, token_id: int) -> bool:
            self.left -= 1
            return self.left > 0 and bool(self.state.consume_token(token_id))

        def compute_bitmask(self) -> bytes:
            return bytes(self.state.compute_bitmask())

    compile_one = GrammarCompiler.compile

    def compile_limited(self: GrammarCompiler, schema: JsonSchema) -> Matcher:
        matcher = compile_one(self, schema)
        matcher._state = Limited(matcher._state)  # type: ignore[assignment]
        return matcher

    monkeypatch.setattr(GrammarCompiler, "compile", compile_limited)
    schema = check_schema(record(colour=COLOUR, n=COUNT))
    requests = [Request(0, ask(), under(schema)), Request(1, ask(), SamplingParams(20))]
    lost, free = (outcome.reply for outcome in sorted(tiny.answer_all(requests, 2), key=lambda each: str(each.key)))
    assert lost is not None
    assert (lost.finish_reason, len(lost.token_ids)) == ("stop", 5)
    with pytest.raises(InvalidAnswer, match="ended too early"):
        read_value(schema, lost.text, lost.finish_reason)
    assert free is not None
    assert free.token_ids == Reply.of(tiny.stream(ask(), SamplingParams(20))).token_ids


def test_a_model_without_an_end_is_refused(tiny: VisionLanguageModel) -> None:
    compiler = GrammarCompiler(tiny.format.tokenizer, tiny.network.decoder.config.vocab_size, frozenset(), "")
    with pytest.raises(DsvlError, match="no end token"):
        compiler.compile(check_schema(record(n=COUNT)))


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (SamplingParams(3), "cut before its JSON was complete"),
        (SamplingParams(60, stop=('": ',)), "it ended too early"),
    ],
)
def test_half_an_answer_is_an_error(tiny: VisionLanguageModel, sampling: SamplingParams, message: str) -> None:
    schema = check_schema(record(colour=COLOUR, n=COUNT))
    reply = answer(tiny, replace(sampling, constraint=schema))
    with pytest.raises(Exception, match=message):
        read_value(schema, reply.text, reply.finish_reason)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from dsvl_cli.engine.conversation import ChatModel, Chunk, Conversation, Message, Part, Reply
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.engine.progress import Reading
from dsvl_cli.errors import ContextOverflow
from tests.pictures import draw_picture

VARIED = SamplingParams(max_new_tokens=12, temperature=3.0, seed=11)


def ask(text: str = "Describe this image.", seed: int = 1) -> Conversation:
    return Conversation([Message("user", (draw_picture(seed), text))])


@pytest.fixture
def small_context(tiny: VisionLanguageModel) -> Iterator[VisionLanguageModel]:
    """The embedded model as if its context were 300 tokens."""
    decoder = tiny.network.decoder
    config = decoder.config
    decoder.config = replace(config, context_length=300)
    yield VisionLanguageModel(tiny.checkpoint, tiny.network, tiny.format, tiny.plan)
    decoder.config = config


def test_it_is_a_chat_model(tiny: VisionLanguageModel) -> None:
    model: ChatModel = tiny
    assert model.context_length == tiny.checkpoint.config["text_config"]["max_position_embeddings"]
    assert model.count_tokens(ask()) > model.image_tokens() > 1


def test_chunks_join_to_the_decoding_of_their_ids(tiny: VisionLanguageModel) -> None:
    for seed in range(8):
        reply = Reply.of(tiny.stream(ask(seed=seed), replace(VARIED, seed=seed, max_new_tokens=30)))
        assert reply.text == tiny.format.decode(reply.token_ids).removeprefix(" ")


def test_a_seed_repeats_an_answer_alone_and_in_a_batch(tiny: VisionLanguageModel) -> None:
    alone = Reply.of(tiny.stream(ask(), VARIED))
    assert Reply.of(tiny.stream(ask(), VARIED)).token_ids == alone.token_ids
    others = {Reply.of(tiny.stream(ask(), replace(VARIED, seed=seed))).token_ids for seed in range(4)}
    assert len(others | {alone.token_ids}) > 2
    batch = [ask("What is it?", seed=2), ask(), ask("Count.", seed=3)]
    chunks = [chunk for index, chunk in tiny.stream_batch(batch, VARIED) if index == 1]
    assert Reply.of(chunks).token_ids == alone.token_ids


@pytest.mark.parametrize(
    "narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-6}], ids=lambda d: next(iter(d))
)
def test_the_narrowest_sampling_is_greedy(tiny: VisionLanguageModel, narrow: dict[str, float]) -> None:
    greedy = Reply.of(tiny.stream(ask(), SamplingParams(max_new_tokens=12)))
    assert Reply.of(tiny.stream(ask(), replace(VARIED, **narrow))).token_ids == greedy.token_ids  # type: ignore[arg-type]


def test_a_repetition_penalty_avoids_what_was_said(tiny: VisionLanguageModel) -> None:
    long = SamplingParams(max_new_tokens=24)
    said = Reply.of(tiny.stream(ask(), replace(long, repetition_penalty=50.0))).token_ids
    assert len(set(said)) == len(said)
    prompt = set(tiny.prepare(ask()).token_ids)
    assert prompt.isdisjoint(said)


def test_a_stop_string_ends_the_answer(tiny: VisionLanguageModel) -> None:
    whole = Reply.of(tiny.stream(ask(), SamplingParams(max_new_tokens=20))).text
    stop = whole[len(whole) // 2 :][:3]
    reply = Reply.of(tiny.stream(ask(), SamplingParams(max_new_tokens=20, stop=(stop,))))
    assert reply.text == whole[: whole.index(stop)]
    assert reply.finish_reason == "stop"


def test_the_end_of_the_context_is_said_not_crashed(small_context: VisionLanguageModel) -> None:
    # Never ending: no end token can be drawn, so only the context can stop it.
    endless = VisionLanguageModel(
        small_context.checkpoint, small_context.network, small_context.format, small_context.plan
    )
    endless.end_ids = frozenset()
    reply = Reply.of(endless.stream(ask(), SamplingParams(max_new_tokens=5000)))
    assert reply.finish_reason == "length"
    assert reply.notice is not None
    assert "300" in reply.notice
    assert reply.stats is not None
    assert reply.stats.prompt_tokens + reply.stats.generated_tokens == 300


@pytest.mark.parametrize("pictures", [0, 10])
def test_a_prompt_that_does_not_fit_is_refused_before_any_work(
    small_context: VisionLanguageModel, pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(small_context.network.decoder, "forward", fail)
    monkeypatch.setattr(small_context.network, "features", fail)
    parts: tuple[Part, ...] = (*(draw_picture(seed) for seed in range(pictures)), "word " * 400)
    talk = Conversation([Message("user", parts)])
    for stream in (lambda: small_context.stream(talk, VARIED), lambda: small_context.stream_batch([talk], VARIED)):
        with pytest.raises(ContextOverflow) as caught:
            next(iter(stream()))
        assert caught.value.prompt_tokens == small_context.count_tokens(talk) > 300
        assert caught.value.context_length == 300
        assert f"{caught.value.prompt_tokens:,}" in caught.value.message
        if pictures:
            assert f"{pictures} picture" in (caught.value.hint or "")


def test_stats_count_what_was_done(tiny: VisionLanguageModel) -> None:
    reply = Reply.of(tiny.stream(ask("A question never asked before.", seed=77), SamplingParams(max_new_tokens=5)))
    stats = reply.stats
    assert stats is not None
    assert stats.prompt_tokens == tiny.count_tokens(ask("A question never asked before.", seed=77))
    assert stats.generated_tokens == len(reply.token_ids) + (reply.finish_reason == "stop")
    assert stats.prompt_seconds > 0
    assert (stats.peak_memory_bytes or 0) > 10**7


def test_only_the_last_chunk_of_a_row_ends_it(tiny: VisionLanguageModel) -> None:
    talks = [ask(seed=seed) for seed in range(3)]
    last: dict[int, Chunk] = {}
    for index, chunk in tiny.stream_batch(talks, [replace(VARIED, max_new_tokens=n) for n in (1, 4, 9)]):
        assert index not in last or last[index].finish_reason is None
        assert (chunk.stats is None) == (chunk.finish_reason is None)
        last[index] = chunk
    assert all(chunk.finish_reason for chunk in last.values())
    assert sorted(last) == [0, 1, 2]


def test_an_empty_batch_is_no_work(tiny: VisionLanguageModel) -> None:
    assert list(tiny.stream_batch([], VARIED)) == []


def test_the_view_is_what_the_model_gets(tiny: VisionLanguageModel) -> None:
    wide = draw_picture(4, (200, 100))
    view = tiny.view(wide)
    side = tiny.network.image_processor.low.side
    assert view.size == (side, side)
    assert view.getpixel((0, 0)) == view.getpixel((side - 1, side - 1)) == (127, 127, 127)
    assert view.getpixel((side // 2, side // 2)) != (127, 127, 127)


@pytest.mark.fault("sampled control token")
@pytest.mark.parametrize("seed", range(6))
def test_what_only_prompts_may_hold_is_never_an_answer(tiny: VisionLanguageModel, seed: int) -> None:
    """At this temperature all tokens are nearly equal: the image token would be drawn in every fourth answer."""
    reply = Reply.of(tiny.stream(ask(), SamplingParams(max_new_tokens=300, temperature=100.0, seed=seed)))
    assert tiny.format.control_ids.isdisjoint(reply.token_ids)
    talk = ask()
    talk.messages += [
        Message("assistant", (reply.text,), reply.token_ids, tiny.fingerprint),
        Message("user", ("And?",)),
    ]
    assert Reply.of(tiny.stream(talk, SamplingParams(max_new_tokens=3))).finish_reason


@pytest.mark.fault("sampled control token")
def test_ids_without_a_token_are_never_chosen(tiny: VisionLanguageModel) -> None:
    """Models have more rows than the tokenizer has tokens."""
    known = tiny.format.tokenizer.get_vocab_size()
    banned = tiny.format.list_banned(known + 100, tiny.end_ids)
    assert set(range(known, known + 100)) <= set(banned)
    assert tiny.format.image_token_id in banned
    assert tiny.end_ids.isdisjoint(banned)
    assert set(banned) - set(range(known, known + 100)) == tiny.format.control_ids - tiny.end_ids


@pytest.mark.fault("damaged session")
@pytest.mark.parametrize("ids", [(1023,), (5, 1023, 1023), (1021, 5), (1022,), (5, 10**6), (2**32,), (-1, 5), (2**70,)])
def test_kept_ids_that_no_answer_can_hold_are_not_used(tiny: VisionLanguageModel, ids: tuple[int, ...]) -> None:
    talk = ask()
    talk.messages += [Message("assistant", ("A circle.",), ids, tiny.fingerprint), Message("user", ("And?",))]
    plain = ask()
    plain.messages += [Message("assistant", ("A circle.",)), Message("user", ("And?",))]
    assert tiny.prepare(talk) == tiny.prepare(plain)
    assert Reply.of(tiny.stream(talk, SamplingParams(max_new_tokens=3))).text


def test_reading_is_told_from_pictures_to_tokens_and_changes_no_answer(tiny: VisionLanguageModel) -> None:
    talk = Conversation([Message("user", (draw_picture(1), draw_picture(2), "What differs?"))])
    greedy = SamplingParams(max_new_tokens=12)
    tiny.forget()
    silent = Reply.of(tiny.stream(talk, greedy))
    tiny.forget()
    told: list[Reading] = []
    reply = Reply.of(tiny.stream(talk, greedy, told.append))
    assert (reply.text, reply.token_ids) == (silent.text, silent.token_ids)
    pictures = [reading for reading in told if reading.picture]
    assert [(reading.picture, reading.pictures) for reading in pictures] == [(1, 2), (2, 2)]
    layers = told[len(pictures) :]
    assert [reading.picture for reading in layers] == [0] * len(tiny.network.decoder.layers)
    tokens = [reading.tokens for reading in layers]
    assert tokens == sorted(tokens)
    assert tokens[0] == 0
    assert {reading.total for reading in told} == {tiny.count_tokens(talk)}
    assert tokens[-1] < tiny.count_tokens(talk)


def test_what_is_cached_counts_as_read(tiny: VisionLanguageModel) -> None:
    talk = ask("What is it?", seed=5)
    tiny.forget()
    reply = Reply.of(tiny.stream(talk, SamplingParams(max_new_tokens=4)))
    said = Message("assistant", (reply.text,), reply.token_ids, tiny.fingerprint, reply.finish_reason)
    longer = Conversation([*talk.messages, said, Message("user", ("And how many are there?",))])
    told: list[Reading] = []
    second = Reply.of(tiny.stream(longer, SamplingParams(max_new_tokens=2), told.append))
    assert second.stats is not None
    assert told[0] == Reading(second.stats.cached_tokens, tiny.count_tokens(longer))
    assert not any(reading.picture for reading in told)

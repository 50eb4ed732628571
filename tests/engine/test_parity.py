"""Our loop against `generate` of transformers, token for token, and a cached turn against a fresh one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor
from transformers.models.deepseek_vl_hybrid.processing_deepseek_vl_hybrid import DeepseekVLHybridProcessor

from dsvl_cli.engine.conversation import Conversation, Message, Picture, Reply, compose_parts
from dsvl_cli.engine.kernels.questions import Measured, Question
from dsvl_cli.engine.kernels.stored_weights import Linear
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.pictures.images import decode
from tests.checkpoints import load_reference
from tests.pictures import draw_picture

QUESTIONS = (
    "Describe this image.", "What colour is it?", "How many shapes are there?", "Is there a red circle?",
    "What is in <image>?", "and the background", "What is the difference between <image> and <image>?",
)  # fmt: skip
GREEDY = SamplingParams(max_new_tokens=16)


def random_conversation(rng: random.Random) -> Conversation:
    """One to three turns over one to three pictures; earlier answers are plain text, as processors take them."""
    pictures = [draw_picture(rng.randrange(1000)) for _ in range(rng.randint(1, 3))]
    turns = rng.randint(1, 3)
    messages: list[Message] = []
    for turn in range(turns):
        here = pictures if turn == turns - 1 else [pictures.pop() for _ in range(min(len(pictures), rng.randint(0, 1)))]
        fitting = [question for question in QUESTIONS if question.count("<image>") in (0, len(here))]
        messages.append(Message("user", compose_parts(rng.choice(fitting), here)))
        if turn < turns - 1:
            messages.append(Message("assistant", (rng.choice(["A red circle.", "Two.", "Yes, it is blue."]),)))
    return Conversation(messages)


def as_processor_input(conversation: Conversation) -> list[dict[str, Any]]:
    """The same conversation as transformers takes it."""
    return [
        {
            "role": message.role,
            "content": [
                {"type": "image", "image": decode(part)}
                if isinstance(part, Picture)
                else {"type": "text", "text": part}
                for part in message.parts
            ],
        }
        for message in conversation.messages
    ]


def processor_of(model: VisionLanguageModel) -> Any:
    hybrid = model.checkpoint.model_type == "deepseek_vl_hybrid"
    processor_class = DeepseekVLHybridProcessor if hybrid else DeepseekVLProcessor
    return processor_class.from_pretrained(model.checkpoint.path, backend="pil", local_files_only=True)


def process(processor: Any, conversation: Conversation) -> dict[str, torch.Tensor]:
    inputs = processor.apply_chat_template(
        as_processor_input(conversation),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return dict(inputs)


def generate_reference(model: VisionLanguageModel, inputs: dict[str, torch.Tensor], tokens: int) -> tuple[int, ...]:
    """The ids that `generate` of transformers gives, without its end token and what only prompts may hold."""
    banned = sorted(model.format.control_ids - model.end_ids)
    output = load_reference(model).generate(
        **inputs, max_new_tokens=tokens, do_sample=False, suppress_tokens=banned or None
    )[0, inputs["input_ids"].shape[1] :]
    return tuple(i for i in output.tolist() if i not in model.end_ids)


@pytest.mark.parametrize(
    ("name", "count"), [("tiny", 40), ("hybrid", 10), pytest.param("tiny", 200, marks=pytest.mark.soak)]
)
def test_greedy_equals_transformers(name: str, count: int, request: pytest.FixtureRequest) -> None:
    model: VisionLanguageModel = request.getfixturevalue(name)
    processor = processor_of(model)
    rng = random.Random(20)
    answers = set()
    for _ in range(count):
        conversation = random_conversation(rng)
        inputs = process(processor, conversation)
        assert inputs["input_ids"][0].tolist() == list(model.prepare(conversation).token_ids)
        reply = Reply.of(model.stream(conversation, GREEDY))
        assert reply.token_ids == generate_reference(model, inputs, GREEDY.max_new_tokens)
        answers.add(reply.text)
    assert len(answers) > count // 20  # a model that always says the same would prove nothing


def test_float32_is_float32_on_a_cpu_that_multiplies_bfloat16(
    tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are stored in bfloat16; the dtype that is asked for decides in what they are multiplied."""

    def prefer_bfloat16(questions: Sequence[Question], _: object) -> dict[str, Measured]:
        """As measured where bfloat16 is the fastest way of all that may be taken."""
        chosen = {
            question.name: "bfloat16" if "bfloat16" in question.names else question.candidates[0].name
            for question in questions
        }
        return {name: Measured(name, candidate, True) for name, candidate in chosen.items()}

    monkeypatch.setattr("dsvl_cli.engine.kernels.choose.measure", prefer_bfloat16)
    assert tiny.checkpoint.stored_dtype == "bfloat16"
    models = {
        dtype: load_model(LoadOptions(model="tiny", dtype=dtype, device="cpu", threads=1))
        for dtype in ("float32", "bfloat16")
    }
    rng = random.Random(5)
    for _ in range(10):
        prompt = tiny.prepare(random_conversation(rng))
        wanted = tiny.network.prefill(prompt, tiny.network.new_cache())
        found = {name: one.network.prefill(prompt, one.network.new_cache()) for name, one in models.items()}
        torch.testing.assert_close(found["float32"], wanted, rtol=0, atol=1e-3)
        assert float((found["bfloat16"] - wanted).abs().max()) > 1e-2  # else nothing was emulated


@pytest.mark.parametrize("name", ["tiny", "hybrid"])
def test_pixels_equal_those_of_the_processor(name: str, request: pytest.FixtureRequest) -> None:
    model: VisionLanguageModel = request.getfixturevalue(name)
    processor = processor_of(model)
    for seed, size in enumerate([(96, 96), (40, 300), (300, 40), (1200, 900), (1, 1), (5, 700)]):
        picture = draw_picture(seed, size)
        expected = process(processor, Conversation([Message("user", (picture, "?"))]))
        pixels = model.network.pixels(picture)
        assert pixels.keys() == expected.keys() - {"input_ids", "attention_mask"}
        for key, values in pixels.items():
            assert torch.equal(values, expected[key]), key


@pytest.mark.parametrize("name", ["tiny", "hybrid"])
def test_a_batch_equals_its_single_rows(name: str, request: pytest.FixtureRequest) -> None:
    model: VisionLanguageModel = request.getfixturevalue(name)
    rng = random.Random(3)
    conversations = [random_conversation(rng) for _ in range(9)]
    params = [SamplingParams(max_new_tokens=rng.randint(1, 12)) for _ in conversations]
    chunks: dict[int, list[Any]] = {i: [] for i in range(len(conversations))}
    for index, chunk in model.stream_batch(conversations, params):
        chunks[index].append(chunk)
    for index, (conversation, param) in enumerate(zip(conversations, params, strict=True)):
        alone = Reply.of(model.stream(conversation, param))
        together = Reply.of(chunks[index])
        assert (together.text, together.token_ids, together.finish_reason) == (
            alone.text,
            alone.token_ids,
            alone.finish_reason,
        )
        assert together.stats is not None
        assert together.stats.generated_tokens == alone.stats.generated_tokens  # type: ignore[union-attr]


def fresh_answer(model: VisionLanguageModel, conversation: Conversation, sampling: SamplingParams) -> Reply:
    """What the model says with nothing kept from before."""
    ((index, _), *_) = pairs = list(model.stream_batch([conversation], sampling))
    assert index == 0
    return Reply.of(chunk for _, chunk in pairs)


def answered(conversation: Conversation, reply: Reply, model: VisionLanguageModel) -> Message:
    return Message("assistant", (reply.text,), reply.token_ids, model.fingerprint, reply.finish_reason)


def take_turn(
    model: VisionLanguageModel, talk: Conversation, sampling: SamplingParams, stop_after: int | None
) -> Reply:
    """Answer, or stop after some chunks as a Ctrl-C would."""
    stream = model.stream(talk, sampling)
    chunks = []
    for count, chunk in enumerate(stream, 1):
        chunks.append(chunk)
        if count == stop_after:
            break
    stream.close()  # type: ignore[attr-defined]
    return Reply.of(chunks)


def play_script(model: VisionLanguageModel, seed: int) -> None:
    """Play a random script of turns, pictures, undos, edits, drops, retries and interrupts, checking every answer."""
    rng = random.Random(seed)
    talk = Conversation()
    for _ in range(rng.randint(3, 7)):
        action = rng.choice(["ask", "ask", "ask", "undo", "edit", "drop", "retry", "continue", "system"])
        answers = [message for message in talk.messages if message.role == "assistant"]
        if action == "undo" and answers:
            del talk.messages[-2:]
            continue
        if action == "system":
            talk.system = rng.choice([None, "", "You are terse."])
            continue
        if action == "drop" and talk.pictures:
            victim = rng.choice(talk.pictures)
            talk.messages[:] = [
                Message(m.role, tuple(p for p in m.parts if p is not victim), m.token_ids, m.model, m.finish_reason)
                for m in talk.messages
            ]
            continue
        if action == "continue" and answers:
            before = talk.messages.pop()
            talk.messages.append(before)
            expected = fresh_answer(model, talk, GREEDY)
            reply = Reply.of(model.stream(talk, GREEDY))
            assert (reply.token_ids, reply.text) == (expected.token_ids, expected.text)
            ids = (before.token_ids or ()) + reply.token_ids
            talk.messages[-1] = Message("assistant", (before.text + reply.text,), ids, model.fingerprint)
            continue
        if action in ("retry", "edit") and answers:
            talk.messages.pop()
            if action == "edit":
                question = talk.messages.pop()
                text = rng.choice(["Is it red?", "What is it?"])
                talk.messages.append(Message("user", (*question.pictures, text)))
        else:
            pictures = [draw_picture(rng.randrange(50)) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
            text = rng.choice(["Describe this image.", "What colour is it?", "And now?"])
            talk.messages.append(Message("user", compose_parts(text, pictures)))
        sampling = SamplingParams(max_new_tokens=rng.randint(1, 10), temperature=rng.choice([0.0, 0.8]), seed=seed)
        expected = fresh_answer(model, talk, sampling)
        stop_after = rng.choice([None, None, rng.randint(1, 6)])
        reply = take_turn(model, talk, sampling, stop_after)
        if stop_after is None:
            assert (reply.token_ids, reply.text) == (expected.token_ids, expected.text)
        else:
            assert reply.token_ids == expected.token_ids[: len(reply.token_ids)]
            assert expected.text.startswith(reply.text)
        talk.messages.append(answered(talk, reply, model))


@pytest.mark.parametrize(
    "seeds",
    [range(25), *(pytest.param(range(at, at + 50), marks=pytest.mark.soak) for at in range(0, 200, 50))],
    ids=str,
)
def test_a_cached_turn_equals_a_fresh_one(tiny: VisionLanguageModel, seeds: range) -> None:
    for seed in seeds:
        play_script(tiny, seed)


def test_a_cached_turn_equals_a_fresh_one_with_the_hybrid(hybrid: VisionLanguageModel) -> None:
    for seed in range(12):
        play_script(hybrid, seed)


def test_the_second_turn_computes_only_what_is_new(tiny: VisionLanguageModel) -> None:
    first = Conversation([Message("user", (draw_picture(7), "Describe this image."))])
    reply = Reply.of(tiny.stream(first, SamplingParams(max_new_tokens=8)))
    second = Conversation([*first.messages, answered(first, reply, tiny), Message("user", ("What colour is it?",))])
    stats = Reply.of(tiny.stream(second, GREEDY)).stats
    assert stats is not None
    new_text = len(tiny.format.encode("User: What colour is it?\n\nAssistant:"))
    # Besides the new text: the end token of the first answer, and its last token, which was never fed back.
    assert stats.prompt_tokens - stats.cached_tokens <= new_text + 2


@pytest.mark.parametrize("is_native", [True, False])
def test_an_exception_within_a_step_leaves_the_cache_usable(
    tiny: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch, is_native: bool
) -> None:
    talk = Conversation([Message("user", (draw_picture(9), "Describe this image."))])
    expected = fresh_answer(tiny, talk, GREEDY)
    decoder = tiny.network.decoder
    kernels, step = decoder.kernels, decoder._native_step
    if is_native and step is None:
        pytest.skip("no native kernels")
    multiply = kernels.linear
    calls = 0

    def interrupt(x: torch.Tensor, weight: Linear) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2 * 7 * len(decoder.layers) + 10:  # in the second layer of the second step
            raise KeyboardInterrupt
        return multiply(x, weight)

    class Interrupted:
        """A signal that arrives in the second step is handled when the native call returns."""

        def dsvl_step(self, *arguments: Any) -> None:
            nonlocal calls
            calls += 1
            assert step is not None
            library.dsvl_step(*arguments)
            if calls == 2:
                raise KeyboardInterrupt

        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

    with monkeypatch.context() as patch:
        if is_native:
            assert step is not None
            library = step._library
            patch.setattr(step, "_library", Interrupted())
        else:
            patch.setattr(decoder, "_native_step", None)
            patch.setattr(kernels, "linear", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(tiny.stream(talk, GREEDY))
    assert Reply.of(tiny.stream(talk, GREEDY)).token_ids == expected.token_ids

"""Whatever ends an answer, wherever: the model answers the next prompt as a new one would."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from dsvl_cli.engine.conversation import Conversation, Message, Reply
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.network.kv_cache import LayerCache
from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.errors import MemoryShortage, is_out_of_memory
from tests.pictures import draw_picture

TOKENS = 60
GREEDY = SamplingParams(max_new_tokens=TOKENS, repetition_penalty=1.3)
FIRST = Conversation([Message("user", (draw_picture(1), "Describe this image."))])
SECOND = Conversation([Message("user", (draw_picture(1), "Describe this image. Then count what is in it, please."))])
OTHER = Conversation([Message("user", (draw_picture(2), "What is it? " * 40))])
SHORTAGES = {
    "Python": MemoryError(),
    "numpy": MemoryError("Unable to allocate 9.31 GiB for an array"),
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:125] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    "CUDA": RuntimeError("CUDA error: out of memory"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    "XPU": RuntimeError("UR error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"),
    "C++": RuntimeError("std::bad_alloc"),
    "system": OSError(errno.ENOMEM, "Cannot allocate memory"),
}
ENDINGS: dict[str, BaseException] = {
    "a bug": ZeroDivisionError("a bug"),
    "Ctrl-C": KeyboardInterrupt(),
    "out of memory": MemoryError(),
}


@pytest.fixture
def model(tiny: VisionLanguageModel) -> Iterator[VisionLanguageModel]:
    """A model of its own caches, on the shared weights."""
    tiny.network.forget()
    yield VisionLanguageModel(tiny.checkpoint, tiny.network, tiny.format, tiny.plan)
    tiny.network.forget()


def answer(model: VisionLanguageModel, talk: Conversation) -> Reply:
    return replace(Reply.of(model.stream(talk, GREEDY)), stats=None)


@pytest.fixture(scope="module")
def expected(tiny: VisionLanguageModel) -> dict[int, Reply]:
    """What a new model answers."""
    replies = {}
    for talk in (FIRST, SECOND, OTHER):
        tiny.network.forget()
        replies[id(talk)] = answer(VisionLanguageModel(tiny.checkpoint, tiny.network, tiny.format, tiny.plan), talk)
    assert len(replies[id(FIRST)].token_ids) > 5
    return replies


class Failing:
    """Calls a function, and raises at one of its calls."""

    def __init__(self, function: Callable[..., Any], call: int, error: BaseException, *, after: bool = False) -> None:
        self.left = call
        self._function, self._error, self._after = function, error, after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self._after:
            raise self._error
        result = self._function(*args, **kwargs)
        if self.left == 0:
            raise self._error
        return result


def interrupt(model: VisionLanguageModel, talk: Conversation) -> BaseException | None:
    try:
        answer(model, talk)
    except BaseException as exc:
        return exc
    return None


def interrupt_at_tokens(model: VisionLanguageModel, tokens: Iterable[int], ending: BaseException) -> None:
    """End answers at some tokens, before and behind their computation, and compare the answers that follow."""
    decoder = model.network.decoder
    with pytest.MonkeyPatch.context() as endless:
        endless.setattr(model, "end_ids", frozenset())  # as many steps as wanted, whatever it says
        wanted = answer(model, FIRST).token_ids
        for token in tokens:
            for after in (False, True):
                with pytest.MonkeyPatch.context() as patch:
                    failing = Failing(decoder.forward, token + 1, ending, after=after)
                    patch.setattr(decoder, "forward", failing)
                    model.forget()
                    assert interrupt(model, FIRST) is not None
                    assert failing.left == 0
                chunks = model.stream(FIRST, replace(GREEDY, max_new_tokens=3))
                assert Reply.of(chunks).token_ids == wanted[:3]
        assert answer(model, FIRST).token_ids == wanted


@pytest.mark.fault("exception at a token", cases=4)
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_at_some_of_the_first_tokens(model: VisionLanguageModel, ending: BaseException, chance: random.Random) -> None:
    interrupt_at_tokens(model, [1, chance.randint(2, 50)], ending)


@pytest.mark.soak
@pytest.mark.fault("exception at a token", cases=100)
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_at_each_of_the_first_tokens(model: VisionLanguageModel, ending: BaseException) -> None:
    interrupt_at_tokens(model, range(1, 51), ending)


@pytest.mark.fault("exception in a prefill", cases=3)
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("layer", [1, 4, 5, 8])
def test_between_two_layers_of_a_prefill(
    model: VisionLanguageModel, expected: dict[int, Reply], ending: BaseException, layer: int
) -> None:
    """The next prompts are longer and shorter: buffers that were allocated before may be of another size."""
    kernels = model.network.decoder.kernels
    for talk, following in ((OTHER, FIRST), (FIRST, OTHER), (FIRST, SECOND)):
        model.forget()
        with pytest.MonkeyPatch.context() as patch:
            # Two writes a layer and prefill: before and behind.
            failing = Failing(LayerCache.write, (layer + 1) // 2, ending, after=layer % 2 == 0)
            patch.setattr(LayerCache, "write", lambda self, *args, call=failing: call(self, *args))
            assert interrupt(model, talk) is not None
        assert kernels is model.network.decoder.kernels
        assert answer(model, following) == expected[id(following)]
        assert answer(model, FIRST) == expected[id(FIRST)]


@pytest.mark.fault("exception in a picture's encoding")
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_in_the_encoding_of_a_picture(
    model: VisionLanguageModel, expected: dict[int, Reply], ending: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model.network, "_tower", Failing(model.network._tower, 1, ending))
        assert interrupt(model, FIRST) is not None
    assert answer(model, FIRST) == expected[id(FIRST)]


@pytest.mark.fault("exception while a cache grows", cases=8)
def test_while_the_buffers_grow(
    model: VisionLanguageModel, expected: dict[int, Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code takes one capacity for all layers."""
    for layer in range(1, 5):
        for after in (False, True):
            model.forget()
            Reply.of(model.stream(FIRST, replace(GREEDY, max_new_tokens=1)))
            cache = model._prefix_cache.cache
            with monkeypatch.context() as patch:
                failing = Failing(LayerCache.grow, layer, MemoryError(), after=after)
                patch.setattr(LayerCache, "grow", lambda self, *args, failing=failing: failing(self, *args))
                with pytest.raises(MemoryError):
                    cache.ensure_room(3 * cache.capacity)
            cache.ensure_room(cache.length + 1)  # as the next step does
            assert len({each.capacity for each in cache.layers}) == 1
            assert answer(model, FIRST) == expected[id(FIRST)]
            assert answer(model, OTHER) == expected[id(OTHER)]
            assert len({each.capacity for each in model._prefix_cache.cache.layers}) == 1


@pytest.mark.fault("out of memory")
@pytest.mark.parametrize("error", SHORTAGES.values(), ids=SHORTAGES)
def test_every_form_of_a_shortage_is_one_and_frees_the_caches(
    model: VisionLanguageModel, expected: dict[int, Reply], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_out_of_memory(error)
    with monkeypatch.context() as patch:
        patch.setattr(model.network, "step", Failing(model.network.step, 2, error))
        with pytest.raises(MemoryShortage, match="not enough memory"):
            answer(model, FIRST)
    assert model._prefix_cache.keys == []
    assert answer(model, FIRST) == expected[id(FIRST)]


def test_other_errors_are_no_shortages() -> None:
    for error in (RuntimeError("shape mismatch"), OSError(errno.ENOSPC, "full"), ValueError("out of memory")):
        assert not is_out_of_memory(error)

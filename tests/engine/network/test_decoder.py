"""Our decoder against transformers' Llama: logits, sequences together and alone, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dsvl_cli.engine.conversation import Conversation, Message
from dsvl_cli.engine.kernels.kernels import PlainKernels
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.network.decoder import Segment
from dsvl_cli.engine.network.kv_cache import KVCache
from dsvl_cli.engine.network.layers import DecoderConfig
from dsvl_cli.errors import DsvlError
from tests.checkpoints import load_reference
from tests.pictures import draw_picture


def random_ids(length: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 1000, (length,), generator=torch.Generator().manual_seed(seed))


def reference_logits(model: VisionLanguageModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = load_reference(model)(input_ids=ids.unsqueeze(0)).logits[0, -1]
    return logits


@pytest.mark.parametrize("name", ["tiny", "hybrid"])
@pytest.mark.parametrize("length", [1, 2, 37, 300])
def test_logits_are_those_of_transformers(request: pytest.FixtureRequest, name: str, length: int) -> None:
    model: VisionLanguageModel = request.getfixturevalue(name)
    decoder, ids = model.network.decoder, random_ids(length, length)
    found = decoder.forward(decoder.embed(ids), [Segment(model.network.new_cache(), length)])[0]
    torch.testing.assert_close(found, reference_logits(model, ids), rtol=1e-4, atol=1e-4)


def test_plain_and_native_kernels_give_the_same_logits(tiny: VisionLanguageModel) -> None:
    decoder, ids = tiny.network.decoder, random_ids(50, 1)
    native = decoder.forward(decoder.embed(ids), [Segment(tiny.network.new_cache(), 50)])
    kernels = decoder.kernels
    try:
        decoder.kernels = PlainKernels()
        plain = decoder.forward(decoder.embed(ids), [Segment(tiny.network.new_cache(), 50)])
    finally:
        decoder.kernels = kernels
    torch.testing.assert_close(native, plain, rtol=1e-4, atol=1e-4)


def test_sequences_of_any_lengths_go_together(tiny: VisionLanguageModel) -> None:
    decoder = tiny.network.decoder
    known = [random_ids(length, length) for length in (5, 1, 90)]
    new = [random_ids(length, 100 + length) for length in (1, 4, 1)]

    def cache_of(ids: torch.Tensor) -> KVCache:
        cache = tiny.network.new_cache()
        decoder.forward(decoder.embed(ids), [Segment(cache, len(ids))])
        return cache

    alone = torch.cat(
        [
            decoder.forward(decoder.embed(more), [Segment(cache_of(ids), len(more))])
            for ids, more in zip(known, new, strict=True)
        ]
    )
    caches = [cache_of(ids) for ids in known]
    segments = [Segment(cache, len(more)) for cache, more in zip(caches, new, strict=True)]
    together = decoder.forward(decoder.embed(torch.cat(new)), segments)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert [cache.length for cache in caches] == [6, 5, 91]


def test_eager_attention_gives_the_same(tiny: VisionLanguageModel) -> None:
    decoder, ids = tiny.network.decoder, random_ids(40, 8)

    def logits() -> torch.Tensor:
        one, other = tiny.network.new_cache(), tiny.network.new_cache()
        decoder.forward(decoder.embed(ids), [Segment(one, 25), Segment(other, 15)])
        return decoder.forward(decoder.embed(ids[:4]), [Segment(one, 3), Segment(other, 1)])

    expected = logits()
    try:
        decoder.attention = "eager"
        torch.testing.assert_close(logits(), expected, rtol=1e-4, atol=1e-4)
    finally:
        decoder.attention = "sdpa"


def test_a_forked_cache_goes_its_own_way(tiny: VisionLanguageModel) -> None:
    prompt = tiny.prepare(Conversation([Message("user", (draw_picture(3), "Describe this image."))]))
    cache = tiny.network.new_cache()
    logits = tiny.network.prefill(prompt, cache)
    fork = cache.fork(cache.length, 400)
    step = [int(logits.argmax())]
    expected = tiny.network.step(step, [cache])
    tiny.network.step([7], [cache])
    torch.testing.assert_close(tiny.network.step(step, [fork]), expected, rtol=0, atol=0)
    short = cache.fork(10, 0)
    assert short.length == 10


def test_a_cache_grows_and_is_cut(tiny: VisionLanguageModel) -> None:
    decoder, ids = tiny.network.decoder, random_ids(600, 5)
    whole = decoder.forward(decoder.embed(ids), [Segment(tiny.network.new_cache(), 600)])
    cache = tiny.network.new_cache()
    for start in range(0, 600, 150):
        found = decoder.forward(decoder.embed(ids[start : start + 150]), [Segment(cache, 150)])
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
    cache.truncate(450)
    again = decoder.forward(decoder.embed(ids[450:]), [Segment(cache, 150)])
    torch.testing.assert_close(again, whole, rtol=1e-4, atol=1e-4)


def test_the_size_of_a_cache_is_known_beforehand(tiny: VisionLanguageModel) -> None:
    cache = tiny.network.new_cache()
    decoder = tiny.network.decoder
    decoder.forward(decoder.embed(random_ids(256, 0)), [Segment(cache, 256)])
    kept = [(layer.keys, layer.values) for layer in cache.layers]
    taken = sum(keys.nbytes + values.nbytes for keys, values in kept if keys is not None and values is not None)
    assert taken == 256 * decoder.bytes_per_token


def test_positions_of_another_kind_are_refused() -> None:
    config = DecoderConfig.read({"text_config": {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}})
    assert config.rope_theta == 5e5
    assert replace(config, layers=2).layers == 2
    with pytest.raises(DsvlError, match="yarn"):
        DecoderConfig.read({"text_config": {"rope_scaling": {"rope_type": "yarn"}}})

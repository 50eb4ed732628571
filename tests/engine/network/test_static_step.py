"""The step that CUDA graphs replay, run on the CPU without recording: it is the decoder's own step."""

from __future__ import annotations

import pytest
import torch

from dsvl_cli.engine.kernels.kernels import PlainKernels
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.network.decoder import Segment
from dsvl_cli.engine.network.static_step import StaticStep, can_record


@torch.inference_mode()
@pytest.mark.parametrize("name", ["tiny", "hybrid"])
def test_it_gives_the_decoders_logits(request: pytest.FixtureRequest, name: str) -> None:
    model: VisionLanguageModel = request.getfixturevalue(name)
    decoder = model.network.decoder
    ids = torch.randint(0, 1000, (300,), generator=torch.Generator().manual_seed(1))
    one, other = model.network.new_cache(), model.network.new_cache()
    for cache in (one, other):
        decoder.forward(decoder.embed(ids[:250]), [Segment(cache, 250)])
    for layer in one.layers:  # what lies behind the sequence may be left from a longer one
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys[:, 250:] = layer.values[:, 250:] = 100.0
    kernels = decoder.kernels
    try:
        decoder.kernels = PlainKernels()
        step = StaticStep(decoder, one, record=False)
        for token_id in ids[250:].tolist():  # the buffer of 256 positions grows on the way
            torch.testing.assert_close(step(token_id), model.network.step([token_id], [other]), rtol=1e-4, atol=1e-4)
    finally:
        decoder.kernels = kernels
    assert one.length == other.length == 300


def test_nothing_is_recorded_on_a_cpu(tiny: VisionLanguageModel) -> None:
    assert not can_record(tiny.network.decoder)

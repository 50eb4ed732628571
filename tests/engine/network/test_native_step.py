"""A decode step in one native call, against the decoder in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsvl_cli.engine.kernels.kernels import PlainKernels
from dsvl_cli.engine.kernels.native.compiler import load_library
from dsvl_cli.engine.kernels.native_kernels import NativeKernels
from dsvl_cli.engine.kernels.stored_weights import Kind, Linear, Weight, quantize
from dsvl_cli.engine.network.decoder import Decoder, Segment
from dsvl_cli.engine.network.kv_cache import KVCache
from dsvl_cli.engine.network.layers import DecoderConfig, LayerWeights, check_shapes

CONFIG = DecoderConfig(
    hidden_size=128, layers=2, heads=4, kv_heads=2, head_dim=32, rms_norm_eps=1e-6, rope_theta=10000.0, vocab_size=75,
    context_length=512, intermediate_size=192,
)  # fmt: skip
FLOATS = {Kind.FLOAT32: torch.float32, Kind.BFLOAT16: torch.bfloat16, Kind.FLOAT16: torch.float16}


@pytest.fixture(scope="module")
def native() -> NativeKernels:
    compiled = load_library()
    if compiled.library is None:
        pytest.skip(compiled.reason)
    return NativeKernels(compiled.library)


def build(
    kernels: PlainKernels, kind: Kind, dtype: torch.dtype, config: DecoderConfig = CONFIG, head: Kind | None = None
) -> Decoder:
    generator = torch.Generator().manual_seed(3)

    def linear(outs: int, columns: int, kind: Kind = kind) -> Linear:
        dense = torch.randn((outs, columns), generator=generator) * columns**-0.5
        return Weight.dense(dense.to(FLOATS[kind])) if kind in FLOATS else quantize(dense, kind)

    def norm() -> torch.Tensor:
        return torch.rand(config.hidden_size, generator=generator) + 0.5

    hidden, wide = config.hidden_size, config.intermediate_size
    inner, outer = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layers = [
        LayerWeights(
            norm(), linear(inner, hidden), linear(outer, hidden), linear(outer, hidden), linear(hidden, inner), norm(),
            linear(wide, hidden), linear(wide, hidden), linear(hidden, wide),
        )
        for _ in range(config.layers)
    ]  # fmt: skip
    embeddings = torch.randn((config.vocab_size, hidden), generator=generator).to(dtype)
    return Decoder(config, embeddings, layers, norm(), linear(config.vocab_size, hidden, head or kind), kernels)


def run(decoder: Decoder, prompts: Sequence[int], steps: int) -> tuple[torch.Tensor, list[KVCache]]:
    """The logits of some steps behind prompts of these lengths."""
    caches = [KVCache(CONFIG.layers) for _ in prompts]
    for number, (cache, length) in enumerate(zip(caches, prompts, strict=True)):
        decoder.forward(decoder.embed((torch.arange(length) * 7 + number) % 75), [Segment(cache, length)])
    logits = []
    for step in range(steps):
        ids = (torch.arange(len(prompts)) * 5 + step) % 75
        logits.append(decoder.forward(decoder.embed(ids), [Segment(cache, 1) for cache in caches]))
    return torch.stack(logits), caches


def check_step(
    kernels: NativeKernels,
    kind: Kind,
    dtype: torch.dtype,
    prompts: Sequence[int] = (3, 9),
    head: Kind | None = None,
    reference: PlainKernels | None = None,
) -> None:
    """Compare steps of random weights with those of the decoder in Python.

    With the same kernels, or with other ones, which compute the prompt then: a run of an emulator takes long.
    """
    quick, slow = build(kernels, kind, dtype, head=head), build(reference or kernels, kind, dtype, head=head)
    assert quick._native_step is not None
    slow._native_step = None
    quick.kernels = reference or kernels
    found, caches = run(quick, prompts, 3)
    wanted, expected = run(slow, prompts, 3)
    # Integer products round activations that differ in their last bits to other integers; so does a bfloat16 cache.
    allowed = 1e-5 if kind is Kind.FLOAT32 and dtype is torch.float32 else 0.03 if reference is None else 0.06
    torch.testing.assert_close(found, wanted, rtol=0, atol=allowed * float(wanted.abs().max()))
    for cache, same, length in zip(caches, expected, prompts, strict=True):
        assert cache.length == same.length == length + 3
        for own, other in zip(cache.layers, same.layers, strict=True):
            for states, wanted_states in zip(own.read(cache.length), other.read(cache.length), strict=True):
                wide = wanted_states.float()
                limit = max(allowed, 0.01) * float(wide.abs().max())
                torch.testing.assert_close(states.float(), wide, rtol=0, atol=limit)


@settings(max_examples=30)
@given(
    kind=st.sampled_from(Kind),
    head=st.sampled_from(Kind),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    prompts=st.lists(st.integers(1, 130), min_size=1, max_size=5),
)
def test_a_step_is_that_of_the_decoder(kind: Kind, head: Kind, dtype: torch.dtype, prompts: list[int]) -> None:
    compiled = load_library()
    if compiled.library is None:
        pytest.skip(compiled.reason)
    check_step(NativeKernels(compiled.library), kind, dtype, prompts, head)


def test_in_float32_a_step_is_exact(native: NativeKernels) -> None:
    """Against torch alone."""
    found, _ = run(build(native, Kind.FLOAT32, torch.float32), (3, 40, 1), 4)
    wanted, _ = run(build(PlainKernels(), Kind.FLOAT32, torch.float32), (3, 40, 1), 4)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", Kind)
def test_a_sequence_does_not_depend_on_its_neighbours(native: NativeKernels, kind: Kind) -> None:
    decoder = build(native, kind, torch.float32)
    together, _ = run(decoder, (5, 60, 17), 3)
    alone, _ = run(decoder, (5,), 3)
    torch.testing.assert_close(together[:, 0], alone[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", Kind)
def test_the_number_of_threads_changes_nothing(native: NativeKernels, kind: Kind) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            decoder = build(native, kind, torch.bfloat16)
            decoder.kernels = PlainKernels()  # of the prompt, by torch: the same with any number of threads
            torch.set_num_threads(1)
            caches = [KVCache(CONFIG.layers)]
            decoder.forward(decoder.embed(torch.arange(20)), [Segment(caches[0], 20)])
            torch.set_num_threads(threads)
            results.append(decoder.forward(decoder.embed(torch.tensor([7])), [Segment(caches[0], 1)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_buffers_grow_and_keep_what_they_hold(native: NativeKernels) -> None:
    """Beyond the 256 positions of the first buffer."""
    decoder = build(native, Kind.FLOAT32, torch.float32)
    found, caches = run(decoder, (254,), 5)
    decoder._native_step = None
    wanted, _ = run(decoder, (254,), 5)
    assert caches[0].length == 259
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_compiled_code_cannot_do_is_left_to_python(native: NativeKernels) -> None:
    odd = replace(CONFIG, head_dim=12)
    decoder = build(native, Kind.FLOAT32, torch.float32, odd)
    assert decoder._native_step is None
    logits, _ = run(decoder, (4,), 2)
    wanted, _ = run(build(PlainKernels(), Kind.FLOAT32, torch.float32, odd), (4,), 2)
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    assert build(PlainKernels(), Kind.FLOAT32, torch.float32)._native_step is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden_size": 192}, "layer 0, query: the shape is"),
        ({"kv_heads": 3}, "the numbers of heads"),
        ({"kv_heads": 1}, "layer 0, key"),
        ({"heads": 8}, "layer 0, query"),
        ({"intermediate_size": 191}, "layer 0, gate"),
        ({"vocab_size": 76}, "the head"),
        ({"head_dim": 0}, "the numbers of heads"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(changed: dict[str, int], message: str) -> None:
    decoder = build(PlainKernels(), Kind.FLOAT32, torch.float32)
    check_shapes(CONFIG, decoder.layers, decoder.norm, decoder.head)
    with pytest.raises(ValueError, match=message):
        check_shapes(replace(CONFIG, **changed), decoder.layers, decoder.norm, decoder.head)

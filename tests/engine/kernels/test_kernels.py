"""The compiled kernels against the plain ones, and the ways of storing weights."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsvl_cli.engine.kernels.integer_products import is_slow
from dsvl_cli.engine.kernels.kernels import Kernels, NativeKernels, PlainKernels, choose_kernels, find_fault
from dsvl_cli.engine.kernels.native import compiler
from dsvl_cli.engine.kernels.stored_weights import GROUP, Kind, Weight, dequantize, quantize
from dsvl_cli.engine.machine.detect import Machine

PLAIN = PlainKernels()


@pytest.fixture(scope="module")
def native() -> NativeKernels:
    compiled = compiler.load_library()
    if compiled.library is None:
        pytest.skip(compiled.reason)
    return NativeKernels(compiled.library)


def make_weight(kind: Kind, outs: int, columns: int, seed: int) -> Weight:
    dense = torch.randn((outs, columns), generator=torch.Generator().manual_seed(seed))
    floats = {Kind.FLOAT32: torch.float32, Kind.BFLOAT16: torch.bfloat16, Kind.FLOAT16: torch.float16}
    return Weight.dense(dense.to(floats[kind])) if kind in floats else quantize(dense, kind)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(Kind),
    outs=st.integers(1, 70),
    groups=st.integers(1, 40),
    rows=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_products_agree(kind: Kind, outs: int, groups: int, rows: int, seed: int) -> None:
    compiled = compiler.load_library()
    if compiled.library is None:
        pytest.skip(compiled.reason)
    weight = make_weight(kind, outs, GROUP * groups, seed)
    x = torch.randn((rows, GROUP * groups), generator=torch.Generator().manual_seed(seed + 1))
    wanted, found = x @ PLAIN.dequantize(weight).T, NativeKernels(compiled.library).linear(x, weight)
    # Activations of 8 bits: half a step of at most 1/127 of the largest in each group, so under 1 % of the whole.
    limit = 1e-5 if weight.scales is None else 0.01
    scale = (x.norm(dim=1, keepdim=True) * PLAIN.dequantize(weight).norm(dim=1)).clamp(min=1e-6)
    assert float(((wanted - found).abs() / scale).max()) < limit


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    kv_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.sampled_from([8, 24, 64, 128]),
    seed=st.integers(0, 1000),
)
def test_attention_agrees(dtype: torch.dtype, lengths: list[int], kv_heads: int, head_dim: int, seed: int) -> None:
    compiled = compiler.load_library()
    if compiled.library is None:
        pytest.skip(compiled.reason)
    generator = torch.Generator().manual_seed(seed)
    caches = []
    for length in lengths:
        states = 3 * torch.randn((2, kv_heads, length + 5, head_dim), generator=generator)
        caches.append((states[0].to(dtype), states[1].to(dtype)))
    queries = 3 * torch.randn((len(lengths), 4, head_dim), generator=generator)
    wanted = PLAIN.attend(queries, caches, lengths, head_dim**-0.5)
    found = NativeKernels(compiled.library).attend(queries, caches, lengths, head_dim**-0.5)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4])
def test_packing_agrees(native: NativeKernels, kind: Kind) -> None:
    dense = torch.randn((64, 256), generator=torch.Generator().manual_seed(3))
    dense[5] = 0
    dense[6] *= 1e4
    wanted, found = quantize(dense, kind), native.quantize(dense, kind)
    assert wanted.scales is not None
    assert found.scales is not None
    # Two scales with nearly the same error: sums in another order may prefer the other.
    assert float((wanted.scales != found.scales).float().mean()) < 0.01
    torch.testing.assert_close(native.dequantize(found), dequantize(found), rtol=0, atol=0)
    assert torch.equal(dequantize(found)[5], dense[5])


@pytest.mark.parametrize(("kind", "error", "bits"), [(Kind.INT8, 0.01, 8.1), (Kind.INT4, 0.1, 4.3)])
def test_quantized_weights_are_near(kind: Kind, error: float, bits: float) -> None:
    dense = torch.randn((128, 1024), generator=torch.Generator().manual_seed(1))
    weight = quantize(dense, kind)
    assert float((dequantize(weight) - dense).norm() / dense.norm()) < error
    assert 8 * weight.nbytes / dense.numel() <= bits


def test_a_long_prompt_is_multiplied_by_dequantized_weights_with_the_same_result(native: NativeKernels) -> None:
    x = torch.randn((64, 256), generator=torch.Generator().manual_seed(2))
    for kind in Kind:
        weight = make_weight(kind, 48, 256, 4)
        torch.testing.assert_close(native.linear(x, weight), x @ PLAIN.dequantize(weight).T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4])
def test_with_native_bfloat16_weights_are_dequantized_to_it(native: NativeKernels, kind: Kind) -> None:
    weight = make_weight(kind, 48, 256, 4)
    wanted = dequantize(weight).bfloat16()
    for kernels in (PlainKernels(native_bf16=True), NativeKernels(native._library, native_bf16=True)):
        assert torch.equal(kernels.dequantize(weight), wanted)
        x = torch.randn((64, 256), generator=torch.Generator().manual_seed(2))
        found = kernels.linear(x, weight)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, x @ dequantize(weight).T, rtol=0, atol=0.01 * float(found.abs().max()))


def test_integers_that_overflow_are_found_out_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> torch.Tensor:
        return torch.zeros((41, 36))

    monkeypatch.setattr("dsvl_cli.engine.kernels.kernels.multiply_quantized", wrong)
    kernels, choice = choose_kernels("cpu", torch.bfloat16, Machine(cpu_features=frozenset({"avx512_vnni"})))
    assert isinstance(kernels, PlainKernels)
    assert not kernels.native_int8
    assert "integer products are not used: they are wrong in INT8 products of 41 rows" in choice.reason


def test_integers_that_are_slow_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsvl_cli.engine.kernels.kernels.find_fault", lambda _: None)
    monkeypatch.setattr("dsvl_cli.engine.kernels.kernels.is_slow", lambda: True)
    kernels, choice = choose_kernels("cpu", torch.bfloat16, Machine(cpu_features=frozenset({"avx512_vnni"})))
    assert isinstance(kernels, PlainKernels)
    assert not kernels.native_int8
    assert "integer products are not used: they are slow" in choice.reason


def test_slow_products_of_integers_are_known_by_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.7])  # three rounds of the one, then one of the other
    monkeypatch.setattr("dsvl_cli.engine.kernels.integer_products.perf_counter", lambda: next(seconds))
    assert is_slow()
    seconds = iter([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.1])
    assert not is_slow()


def test_in_float32_nothing_is_multiplied_in_bfloat16() -> None:
    machine = Machine(cpu_features=frozenset({"avx512_bf16"}))
    exact, _ = choose_kernels("cpu", torch.float32, machine)
    rounding, _ = choose_kernels("cpu", torch.bfloat16, machine)
    assert isinstance(exact, PlainKernels)
    assert isinstance(rounding, PlainKernels)
    assert (exact.native_bf16, rounding.native_bf16) == (False, True)


def test_a_backend_that_is_wrong_is_found_out() -> None:
    class Wrong(PlainKernels):
        def attend(self, *args: object) -> torch.Tensor:
            return super().attend(*args) + 0.01  # type: ignore[arg-type]

    assert find_fault(PLAIN) is None
    assert find_fault(Wrong()) == "attention"


@pytest.mark.parametrize("flags", [(), ("-mno-f16c",), ("-mno-avx2", "-mno-avx", "-mno-f16c", "-Wno-psabi")])
def test_every_float16_is_upcast_exactly(tmp_path: Path, native: NativeKernels, flags: tuple[str, ...]) -> None:
    """By F16C and by arithmetic: subnormal numbers, both zeros and infinities too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "_FLAGS", (*compiler._FLAGS, *flags))
        compiled = compiler.load_library(tmp_path)
    if compiled.library is None:
        pytest.skip(compiled.reason)
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    finite = every[every.isfinite()].float()
    # Each product has one weight that counts, and its value is that of the weight.
    weights = torch.zeros((len(finite), 32), dtype=torch.float16)
    weights[:, 9] = finite.half()
    x = torch.zeros((1, 32))
    x[0, 9] = 1.0
    found = NativeKernels(compiled.library).linear(x, Weight.dense(weights))[0]
    assert torch.equal(found, finite)
    weights = torch.tensor([float("inf"), -float("inf"), float("nan")]).half().unsqueeze(1).repeat(1, 32)
    found = NativeKernels(compiled.library).linear(torch.ones((1, 32)), Weight.dense(weights))[0]
    assert found[:2].tolist() == [float("inf"), -float("inf")]
    assert bool(found[2].isnan())


def test_the_native_ones_are_right_where_the_cpu_multiplies_bfloat16(native: NativeKernels) -> None:
    assert find_fault(NativeKernels(native._library, native_bf16=True)) is None


def test_the_choice_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, choice = choose_kernels("cpu", torch.bfloat16, Machine())
    assert choice.value == kernels.name
    monkeypatch.setenv("DSVL_NATIVE", "0")
    plain, choice = choose_kernels("cpu", torch.bfloat16, Machine())
    assert type(plain) is PlainKernels
    assert "DSVL_NATIVE=0" in choice.reason
    _, choice = choose_kernels("cuda:0", torch.bfloat16, Machine())
    assert "cuda:0" in choice.reason


def without_compiler(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    monkeypatch.setattr(compiler, "find_compiler", lambda: found)


def test_no_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch, None)
    assert compiler.load_library(tmp_path) == compiler.Compiled(None, "no C compiler is installed")


def test_a_compiler_that_fails_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch, "/bin/false")
    assert compiler.load_library(tmp_path) == compiler.Compiled(None, "the C compiler failed")
    assert list(tmp_path.iterdir()) == []


def test_a_library_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler.find_compiler() is None:
        pytest.skip("no C compiler is installed")
    assert compiler.load_library(tmp_path).library is not None
    without_compiler(monkeypatch, None)
    assert compiler.load_library(tmp_path).library is not None


def test_a_damaged_library_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler.find_compiler() is None:
        pytest.skip("no C compiler is installed")
    monkeypatch.setattr(compiler, "_fingerprint", lambda _: "same")
    (tmp_path / "kernels-same.so").write_bytes(b"no library")
    assert compiler.load_library(tmp_path).library is not None


def test_the_source_is_plain_c(tmp_path: Path, native: Kernels) -> None:
    """Without AVX2 the portable versions of the x86 code are compiled; they must give the same products."""
    found = compiler.find_compiler()
    assert found is not None
    if subprocess.run([found, "-march=x86-64", "-E", "-xc", "/dev/null"], capture_output=True).returncode:
        pytest.skip("not an x86 compiler")
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(compiler, "_FLAGS", (*compiler._FLAGS, "-mno-avx2", "-mno-avx", "-Wno-psabi"))
        compiled = compiler.load_library(tmp_path)
    assert compiled.library is not None, compiled.reason
    assert find_fault(NativeKernels(compiled.library)) is None

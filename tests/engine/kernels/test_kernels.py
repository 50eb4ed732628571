"""The compiled kernels against the plain ones, and the ways of storing weights."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsvl_cli.engine.kernels.choose import choose_kernels, find_fault, find_native_fault
from dsvl_cli.engine.kernels.kernels import FEW_ROWS, Kernels, PlainKernels, Route
from dsvl_cli.engine.kernels.native import compiler
from dsvl_cli.engine.kernels.native_kernels import NativeKernels
from dsvl_cli.engine.kernels.questions import Measured, Question, ShapeClass
from dsvl_cli.engine.kernels.stored_weights import (
    GROUP,
    Kind,
    Weight,
    dequantize,
    interleave_int8,
    quantize,
)
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


@settings(max_examples=60)
@given(
    kind=st.sampled_from(Kind),
    outs=st.integers(1, 70),
    groups=st.integers(1, 40),
    rows=st.one_of(st.integers(1, 20), st.integers(190, 210)),
    seed=st.integers(0, 1000),
)
def test_products_agree(kind: Kind, outs: int, groups: int, rows: int, seed: int) -> None:
    compiled = compiler.load_library()
    if compiled.library is None:
        pytest.skip(compiled.reason)
    weight = make_weight(kind, outs, GROUP * groups, seed)
    x = torch.randn((rows, GROUP * groups), generator=torch.Generator().manual_seed(seed + 1))
    routes = {(kind, shape): Route.NATIVE for shape in ShapeClass}
    wanted, found = x @ PLAIN.dequantize(weight).T, NativeKernels(compiled.library, routes).linear(x, weight)
    # Activations of 8 bits: half a step of at most 1/127 of the largest in each group, so under 1 % of the whole.
    limit = 1e-5 if weight.scales is None else 0.01
    scale = (x.norm(dim=1, keepdim=True) * PLAIN.dequantize(weight).norm(dim=1)).clamp(min=1e-6)
    assert float(((wanted - found).abs() / scale).max()) < limit


@settings(max_examples=40)
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


@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4])
def test_panels_hold_the_rows_of_a_weight(kind: Kind) -> None:
    """The layout, spelled out for single weights."""
    dense = torch.randn((20, 128), generator=torch.Generator().manual_seed(8))
    weight = quantize(dense, kind)
    assert weight.scales is not None
    assert weight.data.shape[0] == 2
    for row, column in ((0, 0), (3, 37), (15, 63), (16, 64), (19, 127)):
        panel, lane, group = row // 16, row % 16, column // 64
        if kind is Kind.INT8:
            value = float(weight.data[panel, column // 4, lane, column % 4] * weight.scales[row])
        else:
            within = column % 64
            pair = int(weight.data[panel, 8 * group + within % 32 // 4, lane, column % 4])
            code = pair & 15 if within < 32 else pair >> 4
            value = (code - 8) * float(weight.scales[panel, group, lane])
        assert value == float(dequantize(weight)[row, column])
        assert abs(value - float(dense[row, column])) < (0.02 if kind is Kind.INT8 else 0.35)


def test_stored_8_bit_rows_become_panels_as_they_are() -> None:
    values = torch.randint(-127, 128, (21, 192), dtype=torch.int8, generator=torch.Generator().manual_seed(1))
    scales = torch.rand(21, generator=torch.Generator().manual_seed(2))
    assert torch.equal(dequantize(interleave_int8(values, scales)), values.float() * scales.unsqueeze(1))


@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4])
def test_parts_that_do_not_fit_are_no_weight(kind: Kind) -> None:
    good = quantize(torch.randn(20, 128), kind)
    assert good.scales is not None
    for data, scales, shape in (
        (good.data[:1], good.scales, good.shape),
        (good.data[:, :-1], good.scales, good.shape),
        (good.data, good.scales[:1], good.shape),
        (good.data, good.scales.double(), good.shape),
        (good.data, None, good.shape),
        (good.data, good.scales, (20, 192)),
        (good.data, good.scales, (0, 128)),
        (good.data.float(), good.scales, good.shape),
    ):
        with pytest.raises(ValueError, match="has other parts"):
            Weight(kind, data, scales, shape)


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4])
def test_several_rows_are_multiplied_like_each_alone(native: NativeKernels, kind: Kind, rows: int) -> None:
    weight = make_weight(kind, 50, 1088, 4)
    x = torch.randn((rows, 1088), generator=torch.Generator().manual_seed(2))
    alone = torch.cat([native.linear(x[n : n + 1], weight) for n in range(rows)])
    torch.testing.assert_close(native.linear(x, weight), alone, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so(native: NativeKernels, kind: Kind, bad: float) -> None:
    weight = make_weight(kind, 20, 640, 4)
    x = torch.randn((9, 640), generator=torch.Generator().manual_seed(2))
    clean = native.linear(x, weight)
    x[4, 600] = bad
    found = native.linear(x, weight)
    assert not found[4].isfinite().any()
    torch.testing.assert_close(found[:4], clean[:4], rtol=0, atol=0)


def test_large_and_small_activations_keep_their_precision(native: NativeKernels) -> None:
    """A column a thousand times as large as the others, as language models have, and rows of tiny numbers."""
    weight = make_weight(Kind.INT8, 48, 1024, 4)
    x = torch.randn((12, 1024), generator=torch.Generator().manual_seed(2))
    x[:, 77] *= 1000
    x[3] *= 1e-20
    x[5] = 0
    wanted, found = x @ dequantize(weight).T, native.linear(x, weight)
    assert torch.equal(found[5], torch.zeros(48))
    relative = (wanted - found).norm(dim=1) / wanted.norm(dim=1).clamp(min=1e-30)
    assert float(relative.max()) < 0.05


@pytest.mark.parametrize("kind", Kind)
def test_every_route_leads_to_the_same_result(native: NativeKernels, kind: Kind) -> None:
    weight = make_weight(kind, 48, 256, 4)
    for rows in (1, 3, FEW_ROWS + 1):
        x = torch.randn((rows, 256), generator=torch.Generator().manual_seed(2))
        wanted = x @ PLAIN.dequantize(weight).T
        for route in Route:
            routes = {(kind, shape): route for shape in ShapeClass}
            for kernels in (PlainKernels(routes=routes), NativeKernels(native.library, routes)):
                found = kernels.linear(x, weight)
                assert found.dtype == torch.float32
                allowed = 1e-4 if route is Route.FLOAT32 or kind is Kind.FLOAT32 else 0.02
                torch.testing.assert_close(found, wanted, rtol=0, atol=allowed * float(wanted.abs().max()))


def test_weights_of_several_kinds_are_multiplied_together(native: NativeKernels) -> None:
    x = torch.randn((3, 256), generator=torch.Generator().manual_seed(2))
    kinds = [Kind.INT8, Kind.INT4, Kind.BFLOAT16, Kind.INT4, Kind.INT8, Kind.FLOAT32]
    weights = [make_weight(kind, 10 + 20 * index, 256, index) for index, kind in enumerate(kinds)]
    for weight, found in zip(weights, native.linears(x, weights), strict=True):
        assert torch.equal(found, native.linear(x, weight))


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_in_float32_nothing_is_multiplied_in_bfloat16(own_cache: Path) -> None:
    machine = Machine(cpu_features=frozenset({"avx512_bf16"}))
    exact, _ = choose_kernels("cpu", torch.float32, machine, [Kind.FLOAT32, Kind.INT8])
    assert isinstance(exact, PlainKernels)
    assert exact.routes
    assert Route.BFLOAT16 not in exact.routes.values()


def choose_as_measured(monkeypatch: pytest.MonkeyPatch, choose: Callable[[str], str]) -> PlainKernels:
    """The kernels of a 4-bit model where measuring answers each question as told."""

    def answer(questions: Sequence[Question], _: object) -> dict[str, Measured]:
        names = [question.name for question in questions]
        assert names == ["int4 one row", "int4 few rows", "int4 prompts"]
        return {name: Measured(name, choose(name), True) for name in names}

    monkeypatch.setattr("dsvl_cli.engine.kernels.choose.measure", answer)
    kernels, choice = choose_kernels("cpu", torch.bfloat16, Machine(), [Kind.INT4])
    assert isinstance(kernels, PlainKernels)
    assert choice.value == kernels.name
    return kernels


def test_what_was_measured_is_used(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table says that prompts of 4 bits are faster in bfloat16."""
    kernels = choose_as_measured(monkeypatch, lambda name: "bfloat16" if "prompts" in name else "float32")
    assert kernels.route(Kind.INT4, 1) is Route.FLOAT32
    assert kernels.route(Kind.INT4, FEW_ROWS) is Route.FLOAT32
    assert kernels.route(Kind.INT4, FEW_ROWS + 1) is Route.BFLOAT16


def test_where_every_way_is_wrong_torch_computes_as_the_reference_does(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = choose_as_measured(monkeypatch, lambda name: "reference" if "prompts" in name else "native")
    assert type(kernels) is PlainKernels
    assert {kernels.route(Kind.INT4, rows) for rows in (1, FEW_ROWS, FEW_ROWS + 1)} == {Route.FLOAT32}


def test_a_backend_that_is_wrong_is_found_out() -> None:
    class Wrong(PlainKernels):
        def attend(self, *args: object) -> torch.Tensor:
            return super().attend(*args) + 0.01  # type: ignore[arg-type]

    assert find_fault(PLAIN) is None
    assert find_fault(Wrong()) == "attention"


def test_a_library_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    if compiler.load_library().library is None:
        pytest.skip("no C compiler")
    monkeypatch.setattr("dsvl_cli.engine.kernels.choose.find_fault", lambda _: "norms")
    kernels, choice = choose_kernels("cpu", torch.bfloat16, Machine(), [Kind.INT8])
    assert type(kernels) is PlainKernels
    assert choice.reason == "no native kernels: they are wrong in norms"


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
    (tmp_path / f"kernels-same-{compiler._digest(b'no library')}.so").write_bytes(b"no library")
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
    assert find_native_fault(compiled.library) is None

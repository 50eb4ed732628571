"""The kernels for CPUs that this machine does not have, on emulators, against plain torch.

Arm's are compiled by a cross compiler and run by QEMU; those for AVX-512 and AVX-VNNI are compiled with SIMDe in place
of the intrinsics. QEMU's model of a CPU has only that CPU's instruction sets, so what a variant must not use ends in an
illegal instruction. Debian's packages: gcc-aarch64-linux-gnu, qemu-user, libsimde-dev.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from dsvl_cli.engine.kernels.choose import find_fault
from dsvl_cli.engine.kernels.kernels import PlainKernels, Route
from dsvl_cli.engine.kernels.native.binding import FUNCTIONS
from dsvl_cli.engine.kernels.native.variants import FLAGS, SOURCE, VARIANTS
from dsvl_cli.engine.kernels.native_kernels import NativeKernels
from dsvl_cli.engine.kernels.questions import ShapeClass
from dsvl_cli.engine.kernels.stored_weights import FLOAT_KINDS, GROUP, Kind, Weight, dequantize, quantize
from dsvl_cli.engine.machine.instruction_sets import detect_instruction_sets
from tests.engine.kernels.emulation import EmulatedLibrary
from tests.engine.network.test_native_step import check_step

HERE = Path(__file__).parent
PLAIN = PlainKernels()
KINDS = {Kind.FLOAT32: torch.float32, Kind.BFLOAT16: torch.bfloat16, Kind.FLOAT16: torch.float16}
AVX2 = next(variant for variant in VARIANTS if variant.name == "avx2")
ARM = {variant.name: variant.flags for variant in VARIANTS if variant.machine == "arm64"}
# QEMU's model of an Arm CPU for each variant.
MODELS = {"dotprod": "neoverse-n1", "i8mm": "max", "armv8": "cortex-a53"}
EMULATED = ("EMULATE_AVX512", "EMULATE_AVXVNNI")


@pytest.fixture(scope="module", params=[*MODELS, *EMULATED])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NativeKernels:
    folder = tmp_path_factory.mktemp(request.param)
    library = build_simulated(request.param, folder) if request.param in EMULATED else build_arm(request.param, folder)
    return NativeKernels(cast(ctypes.CDLL, library))


def build_arm(variant: str, folder: Path) -> EmulatedLibrary:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("no cross compiler and QEMU for AArch64 are installed")
    # Without OpenMP: its pragmas are ignored, and there is one thread.
    flags = (*FLAGS, *ARM.get(variant, ("-march=armv8-a",)))
    run(compiler, *flags, "-shared", str(SOURCE), "-o", str(folder / "kernels.so"), "-lm")
    run(compiler, "-O1", "-Wall", str(HERE / "driver.c"), "-o", str(folder / "driver"), "-ldl")
    root = "/usr/aarch64-linux-gnu"  # where Debian has its C library
    command = (emulator, "-L", root, "-cpu", MODELS[variant], str(folder / "driver"), str(folder / "kernels.so"))
    return EmulatedLibrary(command, folder, {name: arguments for name, (_, *arguments) in FUNCTIONS.items()})


def build_simulated(define: str, folder: Path) -> ctypes.CDLL:
    compiler = shutil.which("gcc")
    if compiler is None or platform.machine() != "x86_64" or not AVX2.needs <= detect_instruction_sets():
        pytest.skip("no GCC, or no x86-64 CPU with AVX2")
    probe = (compiler, "-E", "-include", "simde/x86/avx512.h", "-xc", "/dev/null")
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no SIMDe is installed")
    # -O1 compiles in half the time. SIMDe passes vectors of 64 bytes, which -Wno-psabi is about.
    flags = (*FLAGS, "-O1", *AVX2.flags, "-Wno-psabi", f"-D{define}", "-include", str(HERE / "emulated_x86.h"))
    run(compiler, *flags, "-shared", str(SOURCE), "-o", str(folder / "kernels.so"), "-lm")
    return ctypes.CDLL(str(folder / "kernels.so"))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_weight(kind: Kind, outs: int, columns: int) -> Weight:
    dense = draw(outs, columns, seed=1)
    return Weight.dense(dense.to(KINDS[kind])) if kind in KINDS else quantize(dense, kind)


def test_nothing_disagrees(kernels: NativeKernels) -> None:
    assert find_fault(kernels) is None


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(("rows", "outs", "groups"), [(1, 1, 1), (1, 37, 3), (2, 5, 9), (5, 16, 17), (9, 33, 9)])
def test_products_agree(kernels: NativeKernels, kind: Kind, rows: int, outs: int, groups: int) -> None:
    weight, x = make_weight(kind, outs, GROUP * groups), draw(rows, GROUP * groups, seed=2)
    routes = {(kind, shape): Route.NATIVE for shape in ShapeClass}
    wanted = x @ PLAIN.dequantize(weight).T
    found = NativeKernels(kernels.library, routes).linear(x, weight)
    scale = x.norm(dim=1, keepdim=True) * PLAIN.dequantize(weight).norm(dim=1)
    # Activations of 8 bits: see test_kernels.py.
    assert float(((wanted - found).abs() / scale).max()) < (1e-5 if weight.scales is None else 0.01)


@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4])
def test_extreme_integers_do_not_overflow(kernels: NativeKernels, kind: Kind) -> None:
    """Every weight and activation has the largest magnitude, so sums in 16 bits would be the largest too."""
    weight = quantize(torch.ones((8, 4 * GROUP)), kind)
    for sign in (1.0, -1.0):
        x = torch.full((2, 4 * GROUP), sign)
        torch.testing.assert_close(kernels.linear(x, weight), x @ dequantize(weight).T, rtol=1e-3, atol=1e-3)


def test_weights_of_one_kind_are_multiplied_together(kernels: NativeKernels) -> None:
    weights, x = [make_weight(Kind.INT8, outs, 128) for outs in (7, 12)], draw(2, 128)
    for found, weight in zip(kernels.linears(x, weights), weights, strict=True):
        torch.testing.assert_close(found, x @ dequantize(weight).T, rtol=0, atol=0.3)


@pytest.mark.parametrize("dtype", FLOAT_KINDS)
def test_attention_agrees(kernels: NativeKernels, dtype: torch.dtype) -> None:
    caches = [tuple(draw(2, 140, 24, seed=seed + part).to(dtype) for part in (0, 1)) for seed in (4, 6)]
    queries, lengths = 2 * draw(2, 4, 24), [1, 135]
    wanted = PLAIN.attend(queries, cast(Any, caches), lengths, 0.2)
    torch.testing.assert_close(kernels.attend(queries, cast(Any, caches), lengths, 0.2), wanted, rtol=1e-4, atol=1e-4)


def test_norms_and_positions_agree(kernels: NativeKernels) -> None:
    x, weight = draw(3, 72), draw(72, seed=1)
    torch.testing.assert_close(kernels.normalize(x, weight, 1e-5), PLAIN.normalize(x, weight, 1e-5))
    states, cosines, sines = draw(3, 2, 24), draw(3, 24, seed=1), draw(3, 24, seed=2)
    wanted = PLAIN.rotate(states, cosines, sines)
    torch.testing.assert_close(kernels.rotate(states.clone(), cosines, sines), wanted)


@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packing_agrees(kernels: NativeKernels, kind: Kind, dtype: torch.dtype) -> None:
    dense = draw(12, 4 * GROUP)
    dense[5] = 0
    dense[6] *= 1e4
    wanted, found = quantize(dense, kind), kernels.quantize(dense, kind)
    assert wanted.scales is not None
    assert found.scales is not None
    # Two scales may have nearly the same error; test_kernels.py counts them.
    assert float((wanted.scales != found.scales).float().mean()) < 0.05
    torch.testing.assert_close(kernels.dequantize(found, dtype), dequantize(found).to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4, Kind.BFLOAT16])
def test_a_step_agrees(kernels: NativeKernels, kind: Kind, dtype: torch.dtype) -> None:
    check_step(kernels, kind, dtype, reference=PLAIN)


def test_the_driver_passes_the_arguments_of_any_function(tmp_path: Path) -> None:
    """More integers than registers, floats among them, pointers within arrays; on this machine, without an emulator."""
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no GCC is installed")
    (tmp_path / "sum.c").write_text(
        "#include <stdint.h>\n"
        "int dsvl_sum(int a, float x, int64_t b, const float *const *v, float *y, int c, int d, int e, int f, int g,\n"
        "             float z, int h) {\n"
        "    y[1] = v[0][0] + v[1][2] + x * z;\n"
        "    return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * f + 1000000 * g + 10000000 * h;\n"
        "}\n"
    )
    run(compiler, "-shared", "-fPIC", str(tmp_path / "sum.c"), "-o", str(tmp_path / "sum.so"))
    run(compiler, str(HERE / "driver.c"), "-o", str(tmp_path / "driver"), "-ldl")
    library = EmulatedLibrary((str(tmp_path / "driver"), str(tmp_path / "sum.so")), tmp_path)
    first, second, y = torch.tensor([1.0]), torch.tensor([0.0, 0.0, 0.5]), torch.zeros(3)
    pointers = (ctypes.c_void_p * 2)(first.data_ptr(), second.data_ptr())
    x, z, target = ctypes.c_float(3.0), ctypes.c_float(2.0), ctypes.c_void_p(y[1:].data_ptr())
    result = library.dsvl_sum(1, x, ctypes.c_int64(2), pointers, target, 3, 4, 5, 6, 7, z, 8)
    assert result == 87654321
    assert y.tolist() == [0.0, 0.0, 7.5]

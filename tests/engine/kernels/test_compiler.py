"""Which library is loaded: one of the package, one of the cache, or a new one."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dsvl_cli.engine.kernels.native import compiler
from dsvl_cli.engine.kernels.native.variants import (
    FLAGS,
    SOURCE,
    VARIANTS,
    Variant,
    choose_variants,
    compile_library,
    normalize_machine,
)

# As Linux lists them, shortened to what matters here and what is easily confused with it.
_HASWELL = ["sse4_2", "avx", "movbe", "f16c", "fma", "bmi1", "avx2", "bmi2", "abm"]
_SKYLAKE_SERVER = [*_HASWELL, *["avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"]]
_ARM = ["fp", "asimd", "fphp", "asimdhp"]
CPUS = {
    "Westmere": ("x86_64", ["sse4_2"], []),
    "Sandy Bridge": ("x86_64", ["sse4_2", "avx"], []),
    "Bulldozer, without AVX2": ("x86_64", ["avx", "fma", "fma4", "f16c", "bmi1", "abm"], []),
    "Haswell": ("x86_64", _HASWELL, ["avx2"]),
    "Zen 3 on Windows' name of the architecture": ("AMD64", _HASWELL, ["avx2"]),
    "Knights Mill: VNNI of another kind": ("x86_64", [*_HASWELL, "avx512f", "avx512cd", "avx512_4vnniw"], ["avx2"]),
    "Skylake server": ("x86_64", _SKYLAKE_SERVER, ["avx2"]),
    "Cascade Lake": ("x86_64", [*_SKYLAKE_SERVER, "avx512_vnni"], ["avx512-vnni", "avx2"]),
    "Cooper Lake, Zen 4": (
        "x86_64",
        [*_SKYLAKE_SERVER, "avx512_vnni", "avx512_bf16"],
        ["avx512-vnni-bf16", "avx512-vnni", "avx2"],
    ),
    "Sapphire Rapids, Zen 5": (
        "x86_64",
        [*_SKYLAKE_SERVER, "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8"],
        ["avx512-vnni-bf16", "avx512-vnni", "avx-vnni", "avx2"],
    ),
    "Alder Lake": ("x86_64", [*_HASWELL, "avx_vnni"], ["avx-vnni", "avx2"]),
    "a guest without FMA": ("x86_64", [name for name in _HASWELL if name != "fma"], []),
    "Cortex-A72": ("aarch64", ["fp", "asimd"], []),
    "Neoverse N1": ("aarch64", [*_ARM, "asimddp"], ["dotprod"]),
    "Neoverse V1": ("aarch64", [*_ARM, "asimddp", "i8mm", "bf16", "sve"], ["i8mm", "dotprod"]),
    "M1": ("arm64", [*_ARM, "asimddp"], ["dotprod"]),
    "M2": ("arm64", [*_ARM, "asimddp", "i8mm", "bf16"], ["i8mm", "dotprod"]),
    "another architecture": ("riscv64", ["avx2", "asimddp"], []),
    "a system that lists nothing": ("x86_64", [], []),
}


@pytest.mark.parametrize(("machine", "features", "names"), CPUS.values(), ids=CPUS)
def test_a_cpu_gets_what_it_runs_and_the_best_first(machine: str, features: list[str], names: list[str]) -> None:
    assert [variant.name for variant in choose_variants(machine, features)] == names


def test_variants_have_names_of_their_own_and_the_better_ones_are_first() -> None:
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    for index, better in enumerate(VARIANTS):
        for worse in VARIANTS[index + 1 :]:
            assert not (worse.machine == better.machine and worse.needs >= better.needs)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package's folder with an empty source, where a test can put libraries; the CPU has every instruction set."""
    if compiler.load_library().library is None:
        pytest.skip("no kernels can be loaded here")
    every = frozenset(name for variant in VARIANTS for name in variant.needs)
    monkeypatch.setattr(compiler, "FOLDER", tmp_path)
    monkeypatch.setattr(compiler, "detect_instruction_sets", lambda: every)
    monkeypatch.delenv("DSVL_KERNEL_FLAGS", raising=False)
    (tmp_path / SOURCE.name).write_text("int dsvl_nothing;\n")
    return tmp_path


def list_variants() -> list[Variant]:
    return [one for one in VARIANTS if one.machine == normalize_machine(platform.machine())]


def put_library(folder: Path) -> Path:
    """Write the last of this architecture's variants; compiled for any CPU, since none of it is called."""
    found = compiler.find_compiler()
    if found is None:
        pytest.skip("no C compiler is installed")
    path = folder / list_variants()[-1].file_name
    compile_library(found, folder / SOURCE.name, FLAGS, path)
    return path


def test_the_best_library_of_the_package_is_taken_and_nothing_is_compiled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = put_library(folder)
    monkeypatch.setattr(compiler, "find_compiler", lambda: None)
    cache = folder / "cache"
    loaded = compiler.load_library(cache)
    assert loaded.library is not None
    assert loaded.library._name == str(last)
    assert loaded.reason.startswith("built into the package for ")
    assert not cache.exists()


def test_a_damaged_library_of_the_package_is_passed_over(folder: Path) -> None:
    last = put_library(folder)
    (folder / list_variants()[0].file_name).write_bytes(b"no library")
    loaded = compiler.load_library(folder)
    assert loaded.library is not None
    assert loaded.library._name == str(last)


def test_a_cpu_that_no_library_of_the_package_fits_compiles_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_library(folder)
    monkeypatch.setattr(compiler, "detect_instruction_sets", frozenset)
    assert "compiled for this CPU" in compiler.load_library(folder / "cache").reason


def test_own_flags_are_compiled_and_kept_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_library(folder)
    cache = folder / "cache"
    for flags in ("-DFIRST", "-DSECOND='a b'", "-DSECOND='a b'"):
        monkeypatch.setenv("DSVL_KERNEL_FLAGS", flags)
        assert "compiled for this CPU" in compiler.load_library(cache).reason
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setenv("DSVL_KERNEL_FLAGS", "-DOPEN='")
    loaded = compiler.load_library(cache)
    assert loaded.library is None
    assert "DSVL_KERNEL_FLAGS" in loaded.reason


def test_every_source_counts_for_what_is_kept(folder: Path) -> None:
    seen = {compiler._fingerprint(())}
    (folder / "kernels.c").write_text('#include "part.h"\n')
    seen.add(compiler._fingerprint(()))
    (folder / "part.h").write_text("#define ONE 1\n")
    seen.add(compiler._fingerprint(()))
    (folder / "part.h").write_text("#define ONE 2\n")
    seen.add(compiler._fingerprint(()))
    seen.add(compiler._fingerprint(("-O3",)))
    assert len(seen) == 5


@pytest.mark.parametrize("variant", [None, *VARIANTS], ids=lambda one: one.name if one else "portable")
def test_the_kernels_compile_without_warnings(tmp_path: Path, variant: Variant | None) -> None:
    found = shutil.which("gcc")
    if found is None or sys.platform != "linux":
        pytest.skip("no GCC is installed")
    if variant and variant.machine != normalize_machine(platform.machine()):
        pytest.skip("for another architecture")
    # Not an error: the registers for wide vectors, where no instruction set of the flags has them.
    flags = (*(variant.flags if variant else ()), *FLAGS, "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-psabi")
    try:
        compile_library(found, SOURCE, flags, tmp_path / "kernels.so")
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr.decode(errors="replace"))

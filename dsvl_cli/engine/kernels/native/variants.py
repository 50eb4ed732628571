"""The compiled forms of kernels.c that a wheel contains, and the command that makes one.

hatch_build.py loads this file by its path while the package is built, so it imports nothing of the package.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("kernels.c")
SECONDS = 120
# No -ffast-math: linking with it changes the rounding of the whole process.
FLAGS = ("-O2", "-fPIC", "-std=gnu11", "-fno-math-errno", "-ffp-contract=fast")


class Variant(NamedTuple):
    """One form of the library.

    Attributes:
        name: part of its file name.
        machine: the architecture, as `normalize_machine` returns it.
        shown: the instruction sets, for users.
        flags: of the compiler.
        needs: instruction sets that the CPU must have, by Linux' names.
    """

    name: str
    machine: str
    shown: str
    flags: tuple[str, ...]
    needs: frozenset[str]

    @property
    def file_name(self) -> str:
        """The name of the library, next to its source."""
        return f"kernels-{self.name}.so"


# What -march=x86-64-v3 and -march=x86-64-v4 let a compiler use.
_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_ARM = frozenset({"asimd", "asimdhp", "fphp", "asimddp"})

# For each architecture, the best first.
VARIANTS = (
    Variant(
        "avx512-vnni-bf16",
        "x86_64",
        "AVX-512 with VNNI and BF16",
        ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"),
        _V4 | {"avx512_vnni", "avx512_bf16"},
    ),
    Variant(
        "avx512-vnni",
        "x86_64",
        "AVX-512 with VNNI",
        ("-march=x86-64-v4", "-mavx512vnni"),
        _V4 | {"avx512_vnni"},
    ),
    Variant("avx-vnni", "x86_64", "AVX-VNNI", ("-march=x86-64-v3", "-mavxvnni"), _V3 | {"avx_vnni"}),
    Variant("avx2", "x86_64", "AVX2", ("-march=x86-64-v3",), _V3),
    Variant("i8mm", "arm64", "I8MM", ("-march=armv8.2-a+fp16+dotprod+i8mm",), _ARM | {"i8mm"}),
    Variant("dotprod", "arm64", "DotProd", ("-march=armv8.2-a+fp16+dotprod",), _ARM),
)


def choose_variants(machine: str, features: Iterable[str]) -> list[Variant]:
    """Return the forms that a CPU runs, the best first.

    Args:
        machine: the architecture, as `platform.machine()` returns it.
        features: the CPU's instruction sets, by Linux' names.
    """
    known = frozenset(features)
    return [one for one in VARIANTS if one.machine == normalize_machine(machine) and one.needs <= known]


def normalize_machine(machine: str) -> str:
    """Map the names that systems have for one architecture to one name."""
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(machine.lower(), machine.lower())


def compile_library(compiler: str, source: Path, flags: Sequence[str], library: Path) -> None:
    """Compile the kernels.

    Args:
        compiler: GCC or Clang.
        source: `SOURCE`, or a copy of it.
        flags: of both steps, compiling and linking.
        library: the file to write; meanwhile there is an object file of this name next to it.

    Raises:
        subprocess.SubprocessError: the compiler failed, or took too long.
    """
    built = library.with_suffix(".o")
    is_apple = sys.platform == "darwin"
    openmp = ("-Xpreprocessor", "-fopenmp") if is_apple else ("-fopenmp",)
    _run([compiler, *flags, *openmp, "-c", str(source), "-o", str(built)])
    # Linked without OpenMP: its symbols are torch's, resolved when the library is loaded.
    undefined = ("-undefined", "dynamic_lookup") if is_apple else ()
    _run([compiler, *flags, "-shared", *undefined, str(built), "-o", str(library), "-lm"])
    built.unlink()


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, timeout=SECONDS, stdin=subprocess.DEVNULL, capture_output=True)

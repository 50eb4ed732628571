"""kernels.c -> a shared library, compiled once for this CPU and kept in the cache folder.

A compiler is not everywhere: without one, or where anything about it goes wrong, there is no library and a reason why.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsvl_cli.engine.storage.cache_folder import cache_folder
from dsvl_cli.engine.storage.files import new_file, remove_abandoned

SOURCE = Path(__file__).with_name("kernels.c")
_SECONDS = 120
# -march is spelled -mcpu on Arm. No -ffast-math: linking with it changes the rounding of the whole process.
_FLAGS = ("-O3", "-fPIC", "-std=gnu11", "-fno-math-errno", "-ffp-contract=fast", "-w")


@dataclass(frozen=True, slots=True)
class Compiled:
    """The outcome.

    Attributes:
        library: the loaded library; None where there is none.
        reason: how it came to be, or why not.
    """

    library: ctypes.CDLL | None
    reason: str


def load_library(folder: Path | None = None) -> Compiled:
    """Load the library, compiling it if it is not there yet.

    Args:
        folder: where it is kept; `cache_folder()` by default.
    """
    if sys.platform == "win32":
        return Compiled(None, "not written for Windows")
    if os.environ.get("DSVL_NATIVE") == "0":
        return Compiled(None, "DSVL_NATIVE=0")
    runtime = _find_openmp()
    if runtime is None:
        return Compiled(None, "this torch brings no OpenMP library")
    place = (folder or cache_folder()) / f"kernels-{_fingerprint()}.so"
    try:
        # torch's own threads must serve our loops too: two sets of spinning threads would take each other's cores.
        ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
        if place.is_file():
            with contextlib.suppress(OSError):  # damaged: it is made again
                return Compiled(ctypes.CDLL(str(place)), f"compiled for this CPU: {place}")
        compiler = find_compiler()
        if compiler is None:
            return Compiled(None, "no C compiler is installed")
        _compile(compiler, place)
        return Compiled(ctypes.CDLL(str(place)), f"compiled for this CPU: {place}")
    except subprocess.TimeoutExpired:
        return Compiled(None, f"the C compiler takes longer than {_SECONDS} s")
    except subprocess.CalledProcessError:
        return Compiled(None, "the C compiler cannot compile it")
    except OSError as exc:
        return Compiled(None, f"it cannot be kept or loaded: {exc.strerror or exc}")


def find_compiler() -> str | None:
    """Find the C compiler: `CC`, else gcc, cc or clang on the path."""
    chosen = os.environ.get("CC")
    # clang's OpenMP runtime is not the one that torch brings on Linux.
    names = ("clang", "cc") if sys.platform == "darwin" else ("gcc", "cc")
    return next((found for name in filter(None, (chosen, *names)) if (found := shutil.which(name))), None)


def _find_openmp() -> Path | None:
    import torch

    folder = Path(torch.__file__).parent / "lib"
    found = sorted((*folder.glob("libgomp*"), *folder.glob("libomp.dylib")))
    # Wheels for other platforms keep it in a folder beside the package.
    found += sorted((Path(torch.__file__).parent.parent / "torch.libs").glob("libgomp*"))
    return found[0] if found else None


def _fingerprint() -> str:
    """Identify source, flags and CPU: a home may be shared by machines with different ones."""
    described = [SOURCE.read_bytes().decode(), *_FLAGS, platform.machine(), sys.platform]
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        described += [line for line in _until_blank(file) if line.startswith(("flags", "Features", "model name"))]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]


def _until_blank(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.strip():
            return
        yield line


def _compile(compiler: str, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".compiling-") as folder:
        built, library = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        tuned = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
        openmp = ("-Xpreprocessor", "-fopenmp") if sys.platform == "darwin" else ("-fopenmp",)
        _run([compiler, *_FLAGS, tuned, *openmp, "-c", str(SOURCE), "-o", str(built)])
        # Linked without OpenMP: its functions are torch's, found when the library is loaded.
        loose = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
        _run([compiler, "-shared", *loose, str(built), "-o", str(library), "-lm"])
        remove_abandoned(place.parent)
        with new_file(place) as file:
            file.write(library.read_bytes())


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, timeout=_SECONDS, stdin=subprocess.DEVNULL, capture_output=True)

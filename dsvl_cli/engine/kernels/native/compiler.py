"""kernels.c -> a shared library, compiled once for this CPU and kept in the cache folder.

Not every machine has a compiler. Without one, or if anything fails, the result is the reason instead of a library.
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
    """The result of loading the kernels.

    Attributes:
        library: the loaded library, or None.
        reason: where it came from, or why there is none.
    """

    library: ctypes.CDLL | None
    reason: str


def load_library(folder: Path | None = None) -> Compiled:
    """Load the library, compiling it first if necessary.

    Args:
        folder: where the library is kept; `cache_folder()` by default.
    """
    if sys.platform == "win32":
        return Compiled(None, "not available on Windows")
    if os.environ.get("DSVL_NATIVE") == "0":
        return Compiled(None, "DSVL_NATIVE=0")
    runtime = _find_openmp()
    if runtime is None:
        return Compiled(None, "this torch has no OpenMP library")
    path = (folder or cache_folder()) / f"kernels-{_fingerprint()}.so"
    try:
        # Our loops must run on torch's threads: two sets of spinning threads would compete for the cores.
        ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
        if path.is_file():
            with contextlib.suppress(OSError):  # damaged: compiled again below
                return Compiled(ctypes.CDLL(str(path)), f"compiled for this CPU: {path}")
        compiler = find_compiler()
        if compiler is None:
            return Compiled(None, "no C compiler is installed")
        _compile(compiler, path)
        return Compiled(ctypes.CDLL(str(path)), f"compiled for this CPU: {path}")
    except subprocess.TimeoutExpired:
        return Compiled(None, f"the C compiler took longer than {_SECONDS} s")
    except subprocess.CalledProcessError:
        return Compiled(None, "the C compiler failed")
    except OSError as exc:
        return Compiled(None, f"the library cannot be stored or loaded: {exc.strerror or exc}")


def find_compiler() -> str | None:
    """Find the C compiler: `CC`, else gcc, cc or clang in PATH."""
    chosen = os.environ.get("CC")
    # On Linux torch is built with GCC's OpenMP runtime, not clang's.
    names = ("clang", "cc") if sys.platform == "darwin" else ("gcc", "cc")
    return next((found for name in filter(None, (chosen, *names)) if (found := shutil.which(name))), None)


def _find_openmp() -> Path | None:
    import torch

    folder = Path(torch.__file__).parent / "lib"
    found = sorted((*folder.glob("libgomp*"), *folder.glob("libomp.dylib")))
    # Wheels for other platforms have it in a folder next to the package.
    found += sorted((Path(torch.__file__).parent.parent / "torch.libs").glob("libgomp*"))
    return found[0] if found else None


def _fingerprint() -> str:
    """Identify source, flags and CPU: machines with different CPUs may share a home directory."""
    identity = [SOURCE.read_bytes().decode(), *_FLAGS, platform.machine(), sys.platform]
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        identity += [line for line in _until_blank(file) if line.startswith(("flags", "Features", "model name"))]
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]


def _until_blank(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.strip():
            return
        yield line


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".compiling-") as folder:
        built, library = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        tuned = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
        openmp = ("-Xpreprocessor", "-fopenmp") if sys.platform == "darwin" else ("-fopenmp",)
        _run([compiler, *_FLAGS, tuned, *openmp, "-c", str(SOURCE), "-o", str(built)])
        # Linked without OpenMP: its symbols are torch's, resolved when the library is loaded.
        undefined = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
        _run([compiler, "-shared", *undefined, str(built), "-o", str(library), "-lm"])
        remove_abandoned(path.parent)
        with new_file(path) as file:
            file.write(library.read_bytes())


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, timeout=_SECONDS, stdin=subprocess.DEVNULL, capture_output=True)

"""kernels.c -> a loaded library: one that the package contains, or compiled once for this CPU and kept in the cache.

Wheels for common CPUs contain the library (variants.py, hatch_build.py), so most users need no compiler and never wait
for one. A source checkout, and a CPU that no variant fits, use the machine's compiler. Without one, or if anything
fails, the result is the reason instead of a library.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dsvl_cli.engine.kernels.native.variants import FLAGS, SECONDS, SOURCE, choose_variants, compile_library
from dsvl_cli.engine.machine.instruction_sets import describe_cpu, detect_instruction_sets
from dsvl_cli.engine.storage.cache_folder import cache_folder
from dsvl_cli.engine.storage.files import new_file, remove_abandoned
from dsvl_cli.engine.storage.private import find_intruder, is_private_file, make_private_folder

FOLDER = Path(__file__).parent
_FLAGS = FLAGS


@dataclass(frozen=True, slots=True)
class Compiled:
    """The result of loading the kernels.

    Attributes:
        library: the loaded library, or None.
        reason: where it came from, or why there is none.
        fingerprint: of its sources and flags, and of the CPU if it was compiled for this one.
    """

    library: ctypes.CDLL | None
    reason: str
    fingerprint: str = ""


def load_library(folder: Path | None = None) -> Compiled:
    """Load the library: one of the package, else the one in the cache, else a new one.

    `DSVL_KERNEL_FLAGS` adds flags of the compiler, for development; then the package's own are not used.

    Args:
        folder: where a compiled library is kept; `cache_folder()` by default.
    """
    if sys.platform == "win32":
        # Windows has no symbols that stay undefined until loading, which is how the kernels find torch's OpenMP.
        return Compiled(None, "not available on Windows")
    if os.environ.get("DSVL_NATIVE") == "0":
        return Compiled(None, "DSVL_NATIVE=0")
    runtime = _find_openmp()
    if runtime is None:
        return Compiled(None, "this torch has no OpenMP library")
    try:
        # Our loops must run on torch's threads: two sets of spinning threads would compete for the cores.
        ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
        extra = shlex.split(os.environ.get("DSVL_KERNEL_FLAGS", ""))
        built_in = None if extra else _load_built_in()
        return built_in or _load_compiled(folder or cache_folder(), (*_FLAGS, *extra))
    except subprocess.TimeoutExpired:
        return Compiled(None, f"the C compiler took longer than {SECONDS} s")
    except subprocess.CalledProcessError:
        return Compiled(None, "the C compiler failed")
    except OSError as exc:
        return Compiled(None, f"the library cannot be stored or loaded: {exc.strerror or exc}")
    except ValueError as exc:
        return Compiled(None, f"DSVL_KERNEL_FLAGS cannot be read: {exc}")


def _load_built_in() -> Compiled | None:
    """Load the package's library for this CPU, the best first; None if there is none that can be loaded."""
    for variant in choose_variants(platform.machine(), detect_instruction_sets()):
        path = FOLDER / variant.file_name
        if path.is_file():
            with contextlib.suppress(OSError):  # damaged, or for another C library
                reason = f"built into the package for {variant.shown}"
                return Compiled(ctypes.CDLL(str(path)), reason, _fingerprint((*variant.flags, *FLAGS)))
    return None


def _load_compiled(folder: Path, flags: tuple[str, ...]) -> Compiled:
    fingerprint = _fingerprint((*flags, *describe_cpu().values()))
    intruder = find_intruder(folder)
    if intruder is None:
        for path in folder.glob(f"kernels-{fingerprint}-*.so"):
            if _is_whole(path):
                with contextlib.suppress(OSError):  # for another C library: compiled again below
                    return Compiled(ctypes.CDLL(str(path)), f"compiled for this CPU: {path}", fingerprint)
    compiler = find_compiler()
    if compiler is None:
        return Compiled(None, "no C compiler is installed")
    if intruder is None:
        path = _compile(compiler, flags, folder, fingerprint)
        return Compiled(ctypes.CDLL(str(path)), f"compiled for this CPU: {path}", fingerprint)
    with tempfile.TemporaryDirectory(prefix="dsvl-") as private:
        path = _compile(compiler, flags, Path(private), fingerprint)
        return Compiled(ctypes.CDLL(str(path)), f"compiled for this process alone: {intruder}", fingerprint)


def _is_whole(path: Path) -> bool:
    """Whether a kept library is what was compiled here: this user's, and with the content that its name tells.

    A truncated library would end the process as soon as it is mapped.
    """
    return is_private_file(path) and path.stem.rpartition("-")[2] == _digest(path.read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


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


def _fingerprint(identity: tuple[str, ...]) -> str:
    """Identify the sources and what they are compiled with."""
    sources = sorted((*FOLDER.glob("*.c"), *FOLDER.glob("*.h")))
    texts = [path.read_text(encoding="utf-8") for path in sources]
    return hashlib.sha256("\n".join([*texts, *identity]).encode()).hexdigest()[:16]


def _compile(compiler: str, flags: tuple[str, ...], folder: Path, fingerprint: str) -> Path:
    """Compile the kernels into a file of the folder, named by its content, and return its path."""
    make_private_folder(folder)
    remove_abandoned(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".compiling-") as place:
        library = Path(place) / "kernels.so"
        # -march is spelled -mcpu on Arm. First, so that other flags may take instruction sets away.
        tuned = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
        compile_library(compiler, FOLDER / SOURCE.name, (tuned, *flags), library)
        data = library.read_bytes()
    path = folder / f"kernels-{fingerprint}-{_digest(data)}.so"
    with new_file(path, 0o700) as file:
        file.write(data)
    return path

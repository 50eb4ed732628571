"""Compiles the kernels into the wheel where `DSVL_BUILD_KERNELS=1` is set; otherwise the wheel stays pure Python.

The wheel then contains a library for each variant of this architecture, and fits any Python 3 on this platform: the
libraries are loaded by ctypes and use nothing of Python. With `DSVL_BUILD_KERNELS` unset, `pip install .` needs no
compiler, and the kernels are compiled at the first start.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("dsvl_cli", "engine", "kernels", "native")


class KernelHook(BuildHookInterface[Any]):
    """Adds the libraries to the files of a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; an editable install stays pure, since its sources change."""
        if os.environ.get("DSVL_BUILD_KERNELS") != "1" or version == "editable":
            return
        variants = _load_variants(Path(self.root))
        wanted = [one for one in variants.VARIANTS if one.machine == variants.normalize_machine(platform.machine())]
        if sys.platform == "win32" or not wanted:
            raise RuntimeError(f"there are no kernels for {sys.platform} on {platform.machine()}")
        compiler = shutil.which(os.environ.get("CC") or "cc")
        if compiler is None:
            raise RuntimeError("DSVL_BUILD_KERNELS=1 needs a C compiler; set CC")
        if sys.platform == "darwin":
            os.environ.setdefault("MACOSX_DEPLOYMENT_TARGET", "11.0")  # read by the compiler, and by the tag below
        self._work = tempfile.TemporaryDirectory(prefix="dsvl-kernels-")
        for variant in wanted:
            library = Path(self._work.name) / variant.file_name
            try:
                variants.compile_library(compiler, variants.SOURCE, (*variant.flags, *variants.FLAGS), library)
            except subprocess.CalledProcessError as error:
                output = error.stderr.decode(errors="replace")
                raise RuntimeError(f"{compiler} failed for {variant.name}:\n{output}") from error
            build_data["force_include"][str(library)] = str(FOLDER / variant.file_name)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the compiled files; they are in the wheel."""
        if hasattr(self, "_work"):
            self._work.cleanup()


def _load_variants(root: Path) -> Any:
    """Load variants.py by its path: dsvl and its dependencies are not installed where a wheel is built."""
    spec = importlib.util.spec_from_file_location("variants", root / FOLDER / "variants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _platform_tag() -> str:
    """Return the platform tag of a wheel; on Linux auditwheel replaces it by the oldest C library that will do."""
    platform_name = sysconfig.get_platform()
    if sys.platform == "darwin":
        platform_name = f"macosx-{os.environ['MACOSX_DEPLOYMENT_TARGET']}-{platform.machine()}"
    return platform_name.replace("-", "_").replace(".", "_")

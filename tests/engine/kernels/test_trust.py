"""Compiled code is loaded only from where nobody else can have put it, and only whole."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dsvl_cli.engine.kernels.native import compiler
from dsvl_cli.engine.kernels.native.compiler import Compiled, load_library
from dsvl_cli.engine.storage.cache_folder import cache_folder
from dsvl_cli.errors import DsvlError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no kernels for Windows")
_PLANTED = "int planted = 1; __attribute__((constructor)) static void run(void) { __builtin_trap(); }\n"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty source, which is compiled at once; no library of a package."""
    if compiler.find_compiler() is None or compiler._find_openmp() is None:
        pytest.skip("no kernels can be compiled here")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "kernels.c").write_text("int dsvl_nothing;\n")
    monkeypatch.setattr(compiler, "FOLDER", tmp_path / "src")


@pytest.fixture
def cache(tmp_path: Path, sources: None) -> Path:
    return tmp_path / "cache"


def plant(cache: Path) -> Path:
    """Put a library that ends the process where the kept one is, under a name that fits its content."""
    load_library(cache)
    (kept,) = cache.glob("*.so")
    found = compiler.find_compiler()
    assert found is not None
    source = cache / "planted.c"
    source.write_text(_PLANTED)
    subprocess.run([found, "-shared", "-fPIC", str(source), "-o", str(cache / "planted.so")], check=True)
    data = (cache / "planted.so").read_bytes()
    kept.unlink()
    path = cache / f"{kept.stem.rpartition('-')[0]}-{compiler._digest(data)}.so"
    (cache / "planted.so").rename(path)
    path.chmod(0o700)
    return path


def load_elsewhere(cache: Path, sources: Path) -> str:
    """Load in a process that a planted library would end; return the reason."""
    code = (
        "import sys; from pathlib import Path; from dsvl_cli.engine.kernels.native import compiler;"
        "compiler.FOLDER = Path(sys.argv[2]); compiler._find_openmp = lambda: Path(sys.argv[3]);"
        "loaded = compiler.load_library(Path(sys.argv[1]));"
        "assert loaded.library is not None, loaded.reason; print(loaded.reason)"
    )
    command = [sys.executable, "-c", code, str(cache), str(sources), str(compiler._find_openmp())]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.fault("another user's code")
@pytest.mark.parametrize("how", ["open file", "open folder", "open parent", "linked file"])
def test_a_planted_library_is_not_loaded(cache: Path, tmp_path: Path, how: str) -> None:
    deep = cache / "deep"
    planted = plant(deep)
    with pytest.raises(subprocess.CalledProcessError):
        load_elsewhere(deep, tmp_path / "src")  # what is to be prevented
    if how == "open file":
        planted.chmod(0o777)
    elif how == "open folder":
        deep.chmod(0o777)
    elif how == "open parent":
        cache.chmod(0o777)
    else:
        moved = planted.rename(tmp_path / "elsewhere.so")
        planted.symlink_to(moved)
    reason = load_elsewhere(deep, tmp_path / "src")
    assert ("compiled for this process alone" in reason) == (how in ("open folder", "open parent"))


@pytest.mark.fault("truncated code")
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_library_is_compiled_again(cache: Path, tmp_path: Path, share: float) -> None:
    load_library(cache)
    (kept,) = cache.glob("*.so")
    whole = kept.read_bytes()
    kept.unlink()  # it is loaded in this process
    kept.write_bytes(whole[: int(len(whole) * share)])
    assert "compiled for this CPU" in load_elsewhere(cache, tmp_path / "src")
    assert kept.read_bytes() == whole


@pytest.mark.fault("truncated code")
def test_a_library_with_a_flipped_bit_is_compiled_again(cache: Path, tmp_path: Path) -> None:
    load_library(cache)
    (kept,) = cache.glob("*.so")
    whole = bytearray(kept.read_bytes())
    whole[len(whole) // 2] ^= 1
    kept.unlink()
    kept.write_bytes(whole)
    load_elsewhere(cache, tmp_path / "src")
    assert kept.read_bytes() != bytes(whole)


@pytest.mark.fault("another user's code")
def test_a_relative_cache_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSVL_CACHE_DIR", "cache")
    with pytest.raises(DsvlError, match="must be an absolute path"):
        cache_folder()


@pytest.mark.fault("another user's code")
def test_what_is_compiled_is_ones_own_whatever_the_umask_is(tmp_path: Path, sources: None) -> None:
    before = os.umask(0)
    try:
        loaded: Compiled = load_library(tmp_path / "one" / "two")
    finally:
        os.umask(before)
    assert loaded.library is not None
    places = (tmp_path / "one", tmp_path / "one" / "two", *(tmp_path / "one" / "two").iterdir())
    assert {stat.S_IMODE(place.stat().st_mode) for place in places} == {0o700}

"""The cache folder: what dsvl can recompute, such as compiled kernels, packed weights and cached prompts.

What grows is in size-limited subfolders, from which the least recently used files are evicted. Files are written
atomically, so that several processes can share a folder, and are readable only by their owner.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.engine.storage.files import new_file, remove_abandoned
from dsvl_cli.engine.storage.private import find_intruder, is_private_file, make_private_folder
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    import torch

_SUFFIX = ".safetensors"
_MARK = ".checked"  # the suffix of a file that says that another one was


def cache_folder() -> Path:
    """Return dsvl's cache folder: `DSVL_CACHE_DIR`, else the platform's folder for caches.

    An absolute `XDG_CACHE_HOME` is respected on every platform but Windows; a relative one is ignored.

    Raises:
        DsvlError: `DSVL_CACHE_DIR` is relative: code would be loaded from wherever dsvl is started.
    """
    if own := os.environ.get("DSVL_CACHE_DIR"):
        folder = Path(own).expanduser()
        if not folder.is_absolute():
            raise DsvlError(f"DSVL_CACHE_DIR is {own!r}; it must be an absolute path", f"set it to {folder.absolute()}")
        return folder
    from platformdirs import user_cache_path

    try:
        return user_cache_path("dsvl", appauthor=False)
    except RuntimeError:  # no home folder: use a path that cannot exist, as that of a folder that cannot be written
        return Path(os.devnull, "dsvl")


def packed_weights_folder() -> BoundedFolder:
    """Return the folder of `packed_weights.py`."""
    return BoundedFolder(cache_folder() / "packed", 16 * 10**9)


def kept_prefixes_folder() -> BoundedFolder:
    """Return the folder of `prefix_store.py`."""
    return BoundedFolder(cache_folder() / "prefixes", 4 * 10**9)


@dataclass(frozen=True, slots=True)
class BoundedFolder:
    """A size-limited folder of safetensors files.

    Attributes:
        path: the folder, which need not exist yet.
        largest_bytes: the limit on the total size.
    """

    path: Path
    largest_bytes: int

    def list_files(self) -> list[tuple[Path, int]]:
        """Return the files and their sizes in bytes, least recently used first."""
        found = []
        for path in self.path.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):  # another process has just removed it
                status = path.stat()
                found.append((max(status.st_atime_ns, status.st_mtime_ns), path, status.st_size))
        return [(path, size) for _, path, size in sorted(found)]

    def place(self, name: str) -> Path:
        """Return the path of the file with a name."""
        return self.path / f"{name}{_SUFFIX}"

    def find(self, name: str) -> Path | None:
        """Return the path of the file with a name, or None if there is none that this user alone can have written."""
        path = self.place(name)
        return path if is_private_file(path) else None

    def touch(self, path: Path) -> None:
        """Mark a file as just used, without a change of the time of its last change."""
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def is_checked(self, path: Path) -> bool:
        """Whether `note_checked` was called since this file was last changed and the machine was started."""
        try:
            return is_private_file(mark := path.with_suffix(_MARK)) and mark.read_text("ascii") == _state(path)
        except (OSError, ValueError):
            return False

    def note_checked(self, path: Path) -> None:
        """Keep that the content of a file is right."""
        with contextlib.suppress(OSError), new_file(path.with_suffix(_MARK), 0o600) as file:
            file.write(_state(path).encode())

    def write(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
        """Write a file atomically, evicting others to make room.

        Raises:
            OSError: it cannot be written, or is larger than the limit.
        """
        from dsvl_cli.engine.storage.safetensors import serialize

        if (reason := find_intruder(self.path)) is not None:
            raise OSError(errno.EPERM, reason)
        make_private_folder(self.path)
        self._make_room(sum(tensor.nbytes for tensor in tensors.values()))
        with new_file(self.place(name), 0o600) as file:
            for piece in serialize(tensors, metadata):
                file.write(piece)

    def _make_room(self, needed: int) -> None:
        if needed > self.largest_bytes:
            raise OSError(errno.EFBIG, f"larger than the limit of {self.largest_bytes // 10**9} GB")
        remove_abandoned(self.path)
        kept = self.list_files()
        taken = sum(size for _, size in kept)
        for path, size in kept:
            if taken + needed <= self.largest_bytes:
                return
            with contextlib.suppress(OSError):  # Windows cannot remove a mapped file
                path.unlink()
                path.with_suffix(_MARK).unlink(missing_ok=True)
            taken -= size


def _state(path: Path) -> str:
    """Return what a file cannot keep if its content changes, but by a fault of the disk or of the memory.

    Not its ctime, which changes whenever it is touched.
    """
    status = path.stat()
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {boot}"

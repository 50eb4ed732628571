"""The cache folder: what dsvl can recompute, such as compiled kernels, packed weights and cached prompts.

What grows is in size-limited subfolders, from which the least recently used files are evicted. Files are written
atomically, so that several processes can share a folder, and are readable only by their owner.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.engine.storage.files import new_file, remove_abandoned

if TYPE_CHECKING:
    import torch

_SUFFIX = ".safetensors"


def cache_folder() -> Path:
    """Return dsvl's cache folder: `DSVL_CACHE_DIR`, else the platform's folder for caches.

    An absolute `XDG_CACHE_HOME` is respected on every platform but Windows; a relative one is ignored.
    """
    if own := os.environ.get("DSVL_CACHE_DIR"):
        return Path(own).expanduser()
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
                found.append((status.st_mtime_ns, path, status.st_size))
        return [(path, size) for _, path, size in sorted(found)]

    def place(self, name: str) -> Path:
        """Return the path of the file with a name."""
        return self.path / f"{name}{_SUFFIX}"

    def write(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
        """Write a file atomically, evicting others to make room.

        Raises:
            OSError: it cannot be written, or is larger than the limit.
        """
        from dsvl_cli.engine.storage.safetensors import serialize

        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
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
            taken -= size

"""The cache folder: what dsvl can make again, such as compiled kernels, packed weights and kept prompts.

What grows is kept in folders of its own that are bounded: what was not used for longest makes room. Files appear there
whole or not at all, so several processes may use one folder at once, and only their owner may read them.
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
    """Give the folder where dsvl keeps what it can make again: `DSVL_CACHE_DIR`, else the platform's folder for that.

    An absolute `XDG_CACHE_HOME` counts on every platform but Windows; a relative one is ignored.
    """
    if own := os.environ.get("DSVL_CACHE_DIR"):
        return Path(own).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("dsvl", appauthor=False)


def packed_weights_folder() -> BoundedFolder:
    """Give the folder of `packed.py`."""
    return BoundedFolder(cache_folder() / "packed", 16 * 10**9)


def kept_prefixes_folder() -> BoundedFolder:
    """Give the folder of `kept_prefixes.py`."""
    return BoundedFolder(cache_folder() / "prefixes", 4 * 10**9)


@dataclass(frozen=True, slots=True)
class BoundedFolder:
    """A folder of safetensors files.

    Attributes:
        path: it need not be there yet.
        largest_bytes: of all files together.
    """

    path: Path
    largest_bytes: int

    def list_files(self) -> list[tuple[Path, int]]:
        """List the files with their sizes in bytes, the one that was used last at the end."""
        found = []
        for path in self.path.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):  # another process has just removed it
                status = path.stat()
                found.append((status.st_mtime_ns, path, status.st_size))
        return [(path, size) for _, path, size in sorted(found)]

    def place(self, name: str) -> Path:
        """Give the path of the file of a name."""
        return self.path / f"{name}{_SUFFIX}"

    def write(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
        """Write a file beside its place and rename it, after making room.

        Raises:
            OSError: it cannot be written, or the folder may not become as large as that.
        """
        from dsvl_cli.engine.storage.safetensors import serialize

        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(sum(tensor.nbytes for tensor in tensors.values()))
        with new_file(self.place(name), 0o600) as file:
            for piece in serialize(tensors, metadata):
                file.write(piece)

    def _make_room(self, needed: int) -> None:
        if needed > self.largest_bytes:
            raise OSError(errno.EFBIG, f"it would take more than {self.largest_bytes // 10**9} GB")
        remove_abandoned(self.path)
        kept = self.list_files()
        taken = sum(size for _, size in kept)
        for path, size in kept:
            if taken + needed <= self.largest_bytes:
                return
            with contextlib.suppress(OSError):  # Windows removes no file that is mapped
                path.unlink()
            taken -= size

"""The content of files, by its SHA-256: computed on all CPUs, and once for a large file as long as it is not changed.

A file is the same as before if device, inode, size, and the times of its last changes are the same. The time that the
file system itself sets (ctime) is one of them: no program can restore it. A file that was changed within the last few
seconds is hashed again the next time, since another change might leave the same times.

3.9 GB take 2.1 s on two CPUs with SHA instructions; meanwhile the file comes into memory, where the
model needs it anyway.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dsvl_cli.engine.options import count_cpus
from dsvl_cli.engine.storage.cache_folder import cache_folder
from dsvl_cli.engine.storage.files import new_file, remove_abandoned
from dsvl_cli.engine.storage.private import find_intruder, is_private_file, make_private_folder

SMALL = 32 * 2**20  # bytes; a smaller file is hashed each time, which takes no longer than looking it up
_PIECE = 8 * 2**20
_SETTLED_SECONDS = 5.0  # file systems keep times in steps of up to 2 s
_MOST_RECORDS = 500
_DIGEST = re.compile("[0-9a-f]{64}")


def hash_file(path: Path, records: Path | None = None) -> str:
    """Return the hexadecimal digest of a file's content: the SHA-256 of its size and of those of its pieces.

    Args:
        path: the file.
        records: where digests of large files are kept; a folder in `cache_folder()` by default.

    Raises:
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        status = os.fstat(handle)
        if status.st_size <= SMALL:
            return _hash(handle, status.st_size)
        folder = records or _notes()
        record = folder / f"{_identify(status)}.txt"
        if (kept := _read(record)) is not None:
            return kept
        digest = _hash(handle, status.st_size)
        now = os.fstat(handle)
        is_settled = time.time() - max(now.st_mtime, now.st_ctime) > _SETTLED_SECONDS
        if is_settled and _identify(now) == _identify(status):
            _write(record, digest)
        return digest
    finally:
        os.close(handle)


def is_noted(fact: str) -> bool:
    """Whether `note` has kept a fact about a file's content; its name begins with the digest."""
    return is_private_file(_notes() / f"{fact}.txt")


def note(fact: str) -> None:
    """Keep a fact about a file's content, so that it need not be found out again."""
    _write(_notes() / f"{fact}.txt", "")


def _notes() -> Path:
    return cache_folder() / "digests"


def hash_pieces(pieces: Sequence[memoryview]) -> list[str]:
    """Return the SHA-256 of each of some pieces of memory."""
    with ThreadPoolExecutor(count_cpus()) as pool:
        return list(pool.map(lambda piece: hashlib.sha256(piece).hexdigest(), pieces))


def _hash(handle: int, size: int) -> str:
    def digest_of(start: int) -> bytes:
        digest, end = hashlib.sha256(), min(start + _PIECE, size)
        while start < end:
            data = (
                os.pread(handle, end - start, start) if hasattr(os, "pread") else _read_at(handle, end - start, start)
            )
            if not data:
                break  # it is being truncated, and the digest is none that it had
            digest.update(data)
            start += len(data)
        return digest.digest()

    whole = hashlib.sha256(size.to_bytes(8, "little"))
    with ThreadPoolExecutor(count_cpus() if hasattr(os, "pread") else 1) as pool:
        for piece in pool.map(digest_of, range(0, size, _PIECE)):
            whole.update(piece)
    return whole.hexdigest()


def _read_at(handle: int, size: int, start: int) -> bytes:
    os.lseek(handle, start, os.SEEK_SET)
    return os.read(handle, size)


def _identify(status: os.stat_result) -> str:
    facts = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _read(record: Path) -> str | None:
    if not is_private_file(record):
        return None
    with contextlib.suppress(OSError, ValueError):
        text = record.read_text("ascii")
        return text if _DIGEST.fullmatch(text) else None
    return None


def _write(record: Path, digest: str) -> None:
    with contextlib.suppress(OSError):  # it is computed again the next time
        if find_intruder(record.parent) is not None:
            return
        make_private_folder(record.parent)
        remove_abandoned(record.parent)
        kept = sorted(record.parent.glob("*.txt"), key=lambda path: path.stat().st_mtime)
        for old in kept[: max(0, len(kept) - _MOST_RECORDS)]:
            old.unlink(missing_ok=True)
        with new_file(record, 0o600) as file:
            file.write(digest.encode())

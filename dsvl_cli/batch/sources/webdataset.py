"""Pictures in tar archives such as WebDataset shards, one item each, without extraction. Does not import torch."""

from __future__ import annotations

import contextlib
import gzip
import os
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import BinaryIO, TypeVar, cast

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources.sequential_reader import SequentialReader, Stream
from dsvl_cli.engine.pictures.images import MAX_BYTES, PICTURE_EXTENSIONS
from dsvl_cli.errors import DsvlError, ImageError

T = TypeVar("T")
TARS = (".tar", ".tar.gz", ".tgz")
_GZIP = b"\x1f\x8b"
_BLOCK = 512
_MAX_HEADER_BYTES = 2**20  # the format does not limit names and other extended headers
_CHUNK_BYTES = 2**20
_MAX_TEXT_BYTES = 64 * 1024
_texts_lock = threading.Lock()


def is_visible(name: str) -> bool:
    """Whether a member of an archive is not hidden, nor in a hidden folder."""
    return not any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def scan_tar(path: str, takes: Callable[[str], bool] = is_visible) -> Iterator[Item]:
    """Yield the pictures of a `.tar` or `.tar.gz` by extension, in archive order; ids are `ARCHIVE::MEMBER`.

    Links, devices and folders are skipped. Ids of duplicate names get `#2` and so on appended.
    Pictures of a plain archive are read in place; those of a compressed one are only cheap to read in order.

    Args:
        path: the archive.
        takes: whether to take a picture with this name.

    Raises:
        DsvlError: the archive cannot be read, is damaged or cut off. Pictures before the damage are yielded first.
    """
    compressed = _is_compressed(path)
    reader = SequentialReader(lambda _: 0, lambda _: _stream(path), _size)
    times: dict[str, int] = {}
    with _opened(path) as file:
        for index, member in enumerate(_pictures(file, path)):
            if not takes(member.name):
                continue
            times[member.name] = times.get(member.name, 0) + 1
            again = f"#{times[member.name]}" if times[member.name] > 1 else ""
            name = f"{path}::{member.name}{again}"
            if compressed:
                yield Item(name, name, partial(_read_sequential, reader, index, name))
            else:
                yield Item(name, name, partial(_read_at, path, member.offset_data, member.size, name))


def read_text_member(path: str, name: str, extension: str) -> bytes | None:
    """Return the text of a sample: the member with its name up to the extension; None if there is none.

    Raises:
        DsvlError: it is not found before the damage of the archive, which cannot be read further.
    """
    with _texts_lock:  # so that several threads read an archive once
        found, damage = _texts(path, extension)
    text = found.get(os.path.splitext(name)[0] + extension)
    if text is None and damage is not None:
        raise DsvlError(damage.message, damage.hint)
    return text


@lru_cache(maxsize=2)
def _texts(path: str, extension: str) -> tuple[Mapping[str, bytes], DsvlError | None]:
    """Return the texts of an archive, and why there may be more; a damaged one is read once, too."""
    found: dict[str, bytes] = {}
    try:
        with _opened(path) as file:
            for member in _members(file, path, lambda name: name.endswith(extension)):
                if member.size <= _MAX_TEXT_BYTES:
                    file.seek(member.offset_data)
                    found[member.name] = _read_exactly(file, member.size)
    except DsvlError as error:
        return found, error
    return found, None


def _is_compressed(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_GZIP)) == _GZIP
    except OSError as exc:
        raise DsvlError(f"{path}: cannot be read: {exc.strerror or 'unknown error'}") from exc


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open an archive, and turn errors while reading it into DsvlError."""
    try:
        with gzip.open(path) if _is_compressed(path) else open(path, "rb") as file:
            yield cast(BinaryIO, file)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise _damaged(path) from exc
    except OSError as exc:
        raise DsvlError(f"{path}: cannot be read: {exc.strerror or 'unknown error'}") from exc


def _damaged(path: str) -> DsvlError:
    return DsvlError(f"{path}: not a tar archive, or damaged or cut off", "copy or download it again")


class _Headers:
    """A file for `tarfile` that refuses reads larger than a header, so that an archive cannot exhaust memory.

    Attributes:
        last: the data of the last read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.seek = file.seek
        self.tell = file.tell
        self._read = file.read
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes."""
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        self.last = self._read(size)
        return self.last


def _pictures(file: BinaryIO, path: str) -> Iterator[tarfile.TarInfo]:
    """Yield the pictures of an archive; see `_members`."""
    return _members(file, path, _is_picture)


def _members(file: BinaryIO, path: str, is_taken: Callable[[str], bool]) -> Iterator[tarfile.TarInfo]:
    """Yield some files of an archive. The caller may read a file's data before the next one, but nothing else.

    Raises:
        DsvlError, TarError, EOFError, OSError, zlib.error: the archive is damaged or cannot be read.
    """
    headers = _Headers(file)
    archive = _checked(path, lambda: tarfile.TarFile(fileobj=cast(BinaryIO, headers)))
    position = -1
    while member := _checked(path, archive.next):
        if member.size < 0 or member.offset <= position:
            raise _damaged(path)  # prevents an infinite loop
        position = member.offset
        archive.members.clear()  # type: ignore[attr-defined]  # only needed for lookup by name
        if member.isreg() and not member.issparse() and is_taken(member.name):
            yield member
    # `tarfile` also stops at a damaged or missing header; an intact archive ends with a block of zeros.
    if headers.last != bytes(_BLOCK):
        raise _damaged(path)


def _checked(path: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except (tarfile.TarError, EOFError, OSError, zlib.error, MemoryError):
        raise
    except Exception as exc:  # a damaged header can make `tarfile` raise almost anything
        raise _damaged(path) from exc


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in PICTURE_EXTENSIONS


def _stream(path: str) -> Stream[bytes | None]:
    """Read all pictures from the first on; None replaces those that are too large."""
    try:
        with _opened(path) as file:
            for member in _pictures(file, path):
                if member.size > MAX_BYTES:
                    yield None
                    continue
                file.seek(member.offset_data)
                yield _read_exactly(file, member.size)
    except DsvlError as exc:
        raise ImageError(exc.message, exc.hint) from exc


def _read_sequential(reader: SequentialReader[bytes | None], index: int, name: str) -> Sequence[bytes]:
    data = reader.read(index)
    if data is None:
        raise _too_large(name)
    return (data,)


def _read_at(path: str, offset: int, size: int, name: str) -> Sequence[bytes]:
    if size > MAX_BYTES:
        raise _too_large(name)
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return (_read_exactly(file, size),)
    except EOFError as exc:
        raise ImageError(f"{name}: the archive is cut off within this picture", "copy or download it again") from exc
    except OSError as exc:
        raise ImageError(f"{name}: cannot be read: {exc.strerror or 'unknown error'}") from exc


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    pieces = []
    while size:
        piece = file.read(min(size, _CHUNK_BYTES))  # a false size must not allocate memory
        if not piece:
            raise EOFError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _too_large(name: str) -> ImageError:
    return ImageError(f"{name}: larger than the limit of {MAX_BYTES // 2**20} MiB", "make it smaller first")


def _size(data: bytes | None) -> int:
    return 256 + len(data or b"")

"""Loading, checking and decoding pictures.

A `Picture` holds the encoded bytes, and `decode` is a function of those bytes alone. Transparent pictures are put on
white, because diagrams, logos and drawings are made for white pages and their dark lines would vanish on black. Colour
profiles are ignored, as in DeepSeek-VL's own code and in transformers.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import glob
import hashlib
import io
import logging
import os
import re
import shlex
import stat
import sys
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.pictures.access import Access, shown_address
from dsvl_cli.engine.pictures.addresses import (
    decode_data_address,
    is_data_address,
    is_file_address,
    local_path,
    shown_data_address,
)
from dsvl_cli.engine.pictures.colours import to_rgb
from dsvl_cli.engine.pictures.missing import find_file, suggest_name
from dsvl_cli.engine.pictures.patterns import match_files
from dsvl_cli.engine.pictures.signatures import SAVE_AS_PNG, damaged, is_cut_icon, is_heic, is_tga, not_a_picture
from dsvl_cli.engine.pictures.tiff import count_pages, has_absurd_offsets
from dsvl_cli.errors import DsvlError, ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 175_000_000  # a little below Pillow's own process-wide limit, which need not be changed
# Pillow supports 43 formats, some by running other programs; only these are opened, whatever the file name.
SUPPORTED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000", "DDS", "ICNS")
PICTURE_EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".ico", ".icns", ".avif", ".jp2", ".j2k", ".heic", ".heif", ".tga", ".dds",
)  # fmt: skip

_NARROW = 24  # aspect ratio from which the user is warned
_MANY_SCANS = 30
_MAX_SCANNED_PIXELS = 1_500_000_000  # about 4 seconds of decoding
_CACHED_PICTURES = 32  # a batch decodes this many ahead
_CACHED_BYTES = 256 * 2**20
MAX_CACHED_PIXELS = _CACHED_BYTES // 4  # Pillow stores RGB in 4 bytes
_silence = logging.NullHandler()


def read_picture(source: str, *, stdin: BinaryIO | None = None, offline: bool = False) -> Picture:
    """Read a picture from a path, from stdin (`-`), or from an address: http(s) on any host, file, or data.

    A path that differs from a file only in the kind of its spaces or the form of its accents means that file.

    Args:
        source: the path, `-`, or the address, from the user: see `engine.pictures.access` for those that a file names.
        stdin: read for `-`; the process's stdin by default.
        offline: reject URLs.

    Raises:
        ImageError: it is missing, damaged, too large, or not a supported picture.
    """
    if source == "-":
        return picture_from_bytes(_read_stdin(stdin), source)
    if is_address(source):
        from dsvl_cli.engine.pictures.fetch import fetch_picture

        return picture_from_bytes(*fetch_picture(source, Access(offline).as_typed()))
    if is_data_address(source):
        return picture_from_bytes(decode_data_address(source), shown_data_address(source))
    if is_file_address(source):
        source = local_path(source)
    return picture_from_path(Path(find_file(source) or source), shown_address(source))


def picture_from_path(path: Path, name: str | None = None) -> Picture:
    """Read a picture from a regular file; `name` is its name in messages, the path by default.

    Raises:
        ImageError: it is missing, damaged, too large, or not a supported picture.
    """
    name = str(path) if name is None else name
    return picture_from_bytes(read_file(path, name), name)


def read_file(path: Path, name: str) -> bytes:
    """Read the bytes of a regular file within the size limit, without checking that they are a picture.

    Raises:
        ImageError: the file does not exist, is too large or cannot be read; `name` is its name in the message.
    """
    try:
        status = path.stat()  # before opening: opening a pipe would block until the other end is opened
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name}: a folder, not a picture", _folder_hint(name))
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: a pipe or a device, not a file", "pipe the picture in and pass `-` as its name")
        if status.st_size > MAX_BYTES:
            raise _too_large(name)
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise ImageError(f"{name}: no such file", suggest_name(path)) from exc
    except PermissionError as exc:
        raise ImageError(f"{name}: permission denied") from exc
    except OSError as exc:
        raise ImageError(f"{name}: cannot be read: {exc.strerror or 'unknown error'}") from exc
    except ValueError as exc:  # the path contains a NUL
        raise ImageError(f"{name}: not a valid path") from exc


def picture_from_bytes(data: bytes, name: str) -> Picture:
    """Create a picture from an encoded file, decoding it once to check that it is valid.

    Raises:
        ImageError: it is empty, too large, damaged, or not a picture.
    """
    if not data:
        raise ImageError(f"{name}: empty")
    if len(data) > MAX_BYTES:
        raise _too_large(name)
    image, notes = decode_bytes(data, name)
    sha256 = hashlib.sha256(data).hexdigest()
    _recent.put(sha256, image)
    return Picture(name, data, sha256, image.width, image.height, notes)


def picture_from_pixels(
    data: bytes, name: str, size: tuple[int, int], pixels: bytes | None, notes: tuple[str, ...]
) -> Picture:
    """Create a picture from an encoded file that was decoded elsewhere.

    Args:
        data: the encoded file.
        name: its name in messages.
        size: width and height.
        pixels: RGB, `3 * width * height` bytes; None if there are more than `MAX_CACHED_PIXELS`.
        notes: those of `decode_bytes`.
    """
    from PIL import Image

    sha256 = hashlib.sha256(data).hexdigest()
    if pixels is not None:
        _recent.put(sha256, Image.frombytes("RGB", size, pixels))
    return Picture(name, data, sha256, *size, notes)


def decode(picture: Picture) -> Image:
    """Return the pixels: RGB, upright, transparency on white; a function of `picture.data` alone.

    The most recent images are cached and shared: copy one before changing it.

    Raises:
        ImageError: it cannot be decoded.
    """
    image = _recent.get(picture.sha256)
    if image is None:
        image, _ = decode_bytes(picture.data, picture.name)
        _recent.put(picture.sha256, image)
    return image


def crop(picture: Picture, x: int, y: int, w: int, h: int) -> Picture:
    """Crop the upright picture losslessly to `w` x `h` pixels whose top left corner is (x, y).

    Raises:
        ImageError: the region is empty or not within the picture.
    """
    if min(x, y) < 0 or min(w, h) < 1 or x + w > picture.width or y + h > picture.height:
        raise ImageError(
            f"{picture.name}: the region {x},{y},{w},{h} is not within its {picture.width} x {picture.height} pixels",
            "a region is x,y,width,height in pixels from the top left corner",
        )
    buffer = io.BytesIO()
    decode(picture).crop((x, y, x + w, y + h)).save(buffer, "PNG")
    return picture_from_bytes(buffer.getvalue(), f"{picture.name}[{x},{y},{w},{h}]")


def expand_sources(arguments: Sequence[str]) -> list[str]:
    """Expand glob patterns that the shell did not, in natural order (2 before 10).

    `**` matches folders at any depth. The name of an existing file is not treated as a pattern; `-`, addresses and
    files that do not exist are returned unchanged.

    Raises:
        DsvlError: a pattern matches no file, or an argument is a folder.
    """
    sources: list[str] = []
    for argument in arguments:
        if argument == "-" or is_address(argument) or is_data_address(argument) or is_file_address(argument):
            sources.append(argument)
        elif os.path.isdir(argument):
            raise DsvlError(f"{argument}: a folder, not a picture", _folder_hint(argument))
        elif os.path.lexists(argument) or not glob.has_magic(argument) or find_file(argument):
            sources.append(argument)
        else:
            matches = [match for match in match_files(argument) if not os.path.isdir(match)]
            if not matches:
                raise DsvlError(f"{argument}: no file matches this pattern")
            sources.extend(sorted(matches, key=_natural))
    return sources


class _RecentImages:
    """An LRU cache of decoded pictures by SHA-256, so that checking and preprocessing decode only once."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, Image] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, sha256: str) -> Image | None:
        with self._lock:
            if sha256 in self._images:
                self._images.move_to_end(sha256)
            return self._images.get(sha256)

    def put(self, sha256: str, image: Image) -> None:
        with self._lock:
            self._images[sha256] = image
            self._images.move_to_end(sha256)
            while len(self._images) > _CACHED_PICTURES or self._size() > _CACHED_BYTES:
                self._images.popitem(last=False)

    def _size(self) -> int:
        return sum(4 * image.width * image.height for image in self._images.values())


_recent = _RecentImages()


def is_address(source: str) -> bool:
    """Whether a source is an http(s) URL."""
    return source[:8].lower().startswith(("http://", "https://"))


def is_path(source: str) -> bool:
    """Whether a source names a file, and is neither fetched nor holds its data."""
    return not is_address(source) and not is_data_address(source)


def _read_stdin(stdin: BinaryIO | None) -> bytes:
    stream = stdin or getattr(sys.stdin, "buffer", None)
    if stream is None or stream.isatty():
        raise ImageError("-: no picture on standard input", "pipe one in: `dsvl describe - < photo.jpg`")
    data: bytes = stream.read(MAX_BYTES + 1)
    if not data:
        raise ImageError("-: standard input is empty")
    return data


def _natural(path: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts `b2` before `b10`."""
    parts = re.split(r"([0-9]+)", path)
    return [(1, int(part), part) if index % 2 else (0, 0, part) for index, part in enumerate(parts)]


def _folder_hint(name: str) -> str:
    return f"pass the pictures in it, such as {shlex.quote(name.rstrip('/'))}/*.jpg"


def _too_large(name: str, limit: str = f"{MAX_BYTES // 2**20} MiB") -> ImageError:
    return ImageError(f"{name}: larger than the limit of {limit}", "make it smaller first")


def decode_bytes(data: bytes, name: str) -> tuple[Image, tuple[str, ...]]:
    """Return the pixels as `decode` does, and notes for the user.

    Raises:
        ImageError: it cannot be decoded; caused by a MemoryError if memory ran out.
    """
    from PIL import Image, UnidentifiedImageError

    _quiet_pillow()
    formats = _formats(data, name)
    if has_absurd_offsets(data) or is_cut_icon(data):
        raise damaged(name)
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(name, f"{MAX_PIXELS // 10**6} megapixels")
        _check_scans(image, data, name)
        notes = _notes(image, data)
        image.load()
        pixels, more = to_rgb(_upright(image), name)
        return pixels, notes + more
    except ImageError:
        raise
    except UnidentifiedImageError as exc:
        raise not_a_picture(data, name) from exc
    except Image.DecompressionBombError as exc:
        raise _too_large(name, f"{MAX_PIXELS // 10**6} megapixels") from exc
    except MemoryError as exc:
        raise ImageError(f"{name}: not enough memory to decode it", "make it smaller first") from exc
    except Exception as exc:  # a damaged file can make Pillow raise almost anything
        raise damaged(name) from exc


def _check_scans(image: Image, data: bytes, name: str) -> None:
    """Reject a progressive JPEG with so many scans that decoding would take more than a few seconds.

    The attack: https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf
    """
    if image.format not in ("JPEG", "MPO"):
        return
    scans = data.count(b"\xff\xda")  # cannot occur within a scan
    if scans > _MANY_SCANS and scans * image.width * image.height > _MAX_SCANNED_PIXELS:
        raise ImageError(f"{name}: a JPEG with {scans} scans, more than any camera or program writes", SAVE_AS_PNG)


def _quiet_pillow() -> None:
    """Keep Pillow's warnings and log, and libtiff's messages about damaged files, off stderr.

    The filter is specific and permanent: `warnings.catch_warnings` swaps state of the whole process, and threads would
    restore each other's. It is set each time because other code may have replaced the list of filters.
    """
    warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")
    logging.getLogger("PIL").addHandler(_silence)
    _quiet_libtiff()


@functools.cache
def _quiet_libtiff() -> None:
    from PIL import _imaging

    with contextlib.suppress(OSError, AttributeError):  # linked in a way that hides the symbol
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _formats(data: bytes, name: str) -> tuple[str, ...]:
    """Return the formats to try for a file."""
    if not is_heic(data):
        return (*SUPPORTED_FORMATS, "TGA") if is_tga(data, name) else SUPPORTED_FORMATS
    try:
        from pillow_heif import register_heif_opener
    except ImportError as exc:
        raise ImageError(f"{name}: reading HEIC needs an optional package", "pip install 'dsvl[heic]'") from exc
    register_heif_opener()
    return ("HEIF",)


def _notes(image: Image, data: bytes) -> tuple[str, ...]:
    notes: list[str] = []
    frames = count_pages(data) if image.format == "TIFF" else getattr(image, "n_frames", 1)
    if frames > 1 and image.format == "TIFF":
        notes.append(f"only the first of {frames} pages is used")
    elif frames > 1 and image.format == "HEIF":
        notes.append(f"only the primary one of {frames} pictures is used")
    elif frames > 1 and image.format != "MPO":  # in an MPO the others are previews or gain maps of the first
        notes.append(f"animated: only the first of {frames} frames is used")
    if max(image.size) >= _NARROW * min(image.size):
        notes.append(f"long and narrow ({image.width} x {image.height}): the model sees few details")
    return tuple(notes)


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF data: the orientation is unknown
        pass
    return image

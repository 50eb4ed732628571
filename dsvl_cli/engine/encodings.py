"""Decodes every text that comes from outside: files, pipes, lists, arguments. Imports nothing heavy.

Texts are UTF-8, with or without a byte order mark, or UTF-16 with one, as PowerShell's `>` and Notepad write them. What
is neither is refused in one line that says where: wrongly decoded text must not reach the model, or pass for a path.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from dsvl_cli.errors import DsvlError

_HINT = "save it as UTF-8"
_CHUNK_BYTES = 65536
_MAX_BYTES = 16 * 2**20
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # PNG, JPEG: no path begins so


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of a text.

    Attributes:
        codec: `utf-8`, `utf-16-le` or `utf-16-be`.
        mark: the byte order mark that the text begins with, or b"".
    """

    codec: str = "utf-8"
    mark: bytes = b""

    @property
    def unit(self) -> int:
        """The bytes of a code unit."""
        return 1 if self.codec == "utf-8" else 2

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.codec.upper()[:6].rstrip("-")

    def encode(self, text: str) -> bytes:
        """Encode a text without the mark; surrogates that stand for bytes of a UTF-8 text become those bytes."""
        return text.encode(self.codec, "surrogateescape" if self.unit == 1 else "replace")

    def decode(self, data: bytes, errors: str = "strict") -> str:
        """Decode bytes after the mark.

        Raises:
            UnicodeDecodeError: they are not text in this encoding.
        """
        return data.decode(self.codec, errors)

    def ends_line(self, data: bytes) -> bool:
        """Whether the bytes of whole lines end with a line feed."""
        return data.endswith(self.encode("\n")) and len(data) % self.unit == 0


UTF8 = Encoding()
_MARKED = (
    Encoding("utf-8", codecs.BOM_UTF8),
    Encoding("utf-16-le", codecs.BOM_UTF16_LE),
    Encoding("utf-16-be", codecs.BOM_UTF16_BE),
)


def find_encoding(beginning: bytes) -> Encoding:
    """Return the encoding of a text by its first bytes, at least three if it has so many."""
    return next((found for found in _MARKED if beginning.startswith(found.mark)), UTF8)


def decode_text(data: bytes, name: str) -> str:
    r"""Return a text without its byte order mark, with `\n` at the ends of its lines.

    Args:
        data: the bytes.
        name: where they come from, in the message.

    Raises:
        DsvlError: they are not text.
    """
    encoding = find_encoding(data)
    body = data[len(encoding.mark) :]
    try:
        text = encoding.decode(body)
    except UnicodeDecodeError as exc:
        before = encoding.decode(body[: exc.start - exc.start % encoding.unit], "replace")
        raise not_text(name, before, body[exc.start], encoding) from exc
    if "\0" in text:
        raise not_text(name, text[: text.index("\0")], 0, encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def not_text(name: str, before: str, byte: int, encoding: Encoding = UTF8) -> DsvlError:
    """Return the error for bytes that are not text; `before` is what was decoded before the first wrong one."""
    place = f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    if not byte:
        return DsvlError(f"{place}: not text: it has a null character", "was another file meant?")
    return DsvlError(f"{place}: not {encoding.name}: byte 0x{byte:02X}", _HINT)


def read_text(path: Path | str) -> str:
    """Return the text of a file; see `decode_text`.

    Raises:
        DsvlError: the file cannot be read, is too large, or is not text.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise DsvlError(f"{path}: larger than the limit of {_MAX_BYTES // 2**20} MiB", "was another file meant?")
        return decode_text(data, str(path))
    except (OSError, ValueError) as exc:  # ValueError: a null character in the path
        raise DsvlError(f"{path}: cannot be read: {getattr(exc, 'strerror', None) or 'not a valid path'}") from exc


def read_stdin(stdin: TextIO | None = None) -> str:
    """Return the text on standard input; see `decode_text`.

    Raises:
        DsvlError: it is closed, or not text.
    """
    stream = sys.stdin if stdin is None else stdin
    if stream is None:
        raise DsvlError("standard input is closed", "pipe the text in, or give it as an argument")
    buffer = getattr(stream, "buffer", None)
    return stream.read() if buffer is None else decode_text(buffer.read(), "standard input")


def decode_lines(stream: BinaryIO) -> Iterator[str]:
    """Yield the lines of a stream as they come, without their ends; characters replace what is not text."""
    first = stream.readline()
    encoding = find_encoding(first)
    decoder = codecs.getincrementaldecoder(encoding.codec)("replace")
    held, data = "", first[len(encoding.mark) :]
    while data:
        *lines, held = (held + decoder.decode(data)).split("\n")
        yield from map(_tidy, lines)
        data = stream.readline()
    if held := held + decoder.decode(b"", final=True):
        yield _tidy(held)


def _tidy(line: str) -> str:
    return line.removeprefix("\ufeff").removesuffix("\r")  # of files one after the other, each may have a mark


def read_line(file: BinaryIO, limit: int, encoding: Encoding = UTF8) -> bytes:
    """Read the bytes of one line with its end, or about `limit` bytes of it; b"" at the end of the file."""
    line = file.readline(limit)
    # Half of a code unit can look like a line feed, and the other half of a real one follows it.
    while encoding.unit > 1 and line and not encoding.ends_line(line) and len(line) < limit:
        piece = file.read(1) if len(line) % encoding.unit else file.readline(limit - len(line))
        if not piece:
            break
        line += piece
    return line


def split_names(names: BinaryIO) -> Iterator[str]:
    """Split a list into names, one per line or null-terminated, and yield each as soon as it is complete.

    Bytes that are not UTF-8 stay in the names as surrogates, as in all paths.

    Raises:
        DsvlError: the list is not text: a picture, UTF-16 without a mark, or not what its mark says.
    """
    read = getattr(names, "read1", names.read)
    beginning = b""
    while any(found.mark.startswith(beginning) for found in _MARKED) and (chunk := read(_CHUNK_BYTES)):
        beginning += chunk
    encoding = find_encoding(beginning)
    if beginning.startswith(_PICTURES):
        raise DsvlError("the list of pictures is a picture itself", "give a picture as an argument, not as a list")
    if _is_unmarked_utf16(beginning):
        raise DsvlError("the list of pictures is UTF-16 without a byte order mark", _HINT)
    if encoding.unit == 1:
        decoder = codecs.getincrementaldecoder(sys.getfilesystemencoding())(sys.getfilesystemencodeerrors())
    else:
        decoder = codecs.getincrementaldecoder(encoding.codec)()
    held, end, chunk = "", "", beginning[len(encoding.mark) :]
    try:
        while chunk:
            held += decoder.decode(chunk)
            if not end:
                # Paths contain no null character: if there is one, it is the separator.
                end = "\0" if "\0" in held else "\n" if "\n" in held else ""
            if end:
                *whole, held = held.split(end)
                yield from filter(None, whole)
            chunk = read(_CHUNK_BYTES)
        held += decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:
        raise DsvlError(f"the list of pictures is not {encoding.name}, which it begins with", _HINT) from exc
    if held:
        yield held


def _is_unmarked_utf16(beginning: bytes) -> bool:
    """Whether the beginning of a list looks like ASCII in UTF-16, and not like names that end with a null character."""
    units = beginning[:64]
    # Names of one character each would look the same, but no picture is named "." or "/".
    return any(
        len(units) > 3
        and not any(units[1 - place :: 2])
        and all(units[place::2])
        and set(b"./\n") & set(units[place::2])
        for place in (0, 1)
    )


def find_undecodable(text: str) -> str | None:
    """Describe the first byte of an argument that is not UTF-8, such as `byte 0xE9 after 'caf'`; None if all are."""
    for place, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            byte = ord(character) - 0xDC00
            what = f"byte 0x{byte:02X}" if 0x80 <= byte <= 0xFF else "a lone surrogate"
            before = text[max(0, place - 20) : place]
            return f"{what} after {before!r}" if before else f"{what} at its beginning"
    return None

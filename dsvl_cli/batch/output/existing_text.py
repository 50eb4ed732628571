"""Adds a text to a file that somebody else wrote, in the encoding and with the line ends that it has."""

from __future__ import annotations

from dsvl_cli.engine.encodings import find_encoding


class ExistingText:
    """The text of a file to which another is added; one that is not text in its encoding stays as it is, too.

    Args:
        data: the bytes of its file.
    """

    def __init__(self, data: bytes) -> None:
        self._encoding = find_encoding(data)
        self._body = data[len(self._encoding.mark) :]
        self._end = self._encode("\n")
        if self._find(self._encode("\r\n")) >= 0:
            self._end = self._encode("\r\n")

    def has(self, text: str) -> bool:
        """Whether a text is part of it."""
        return self._locate(text)[0] >= 0

    def replaced(self, text: str, new: str) -> bytes:
        """Return it with a part replaced."""
        place, part = self._locate(text)
        return self._encoding.mark + self._body[:place] + self._lines(new) + self._body[place + len(part) :]

    def appended(self, text: str) -> bytes:
        """Return it with a text below."""
        return self._joined(self._ended(), self._lines(text))

    def prepended(self, text: str) -> bytes:
        """Return it with a text above."""
        return self._joined(self._lines(text), self._ended())

    def _ended(self) -> bytes:
        """Return it without the end of its last line."""
        return self._body.removesuffix(self._end if self._body.endswith(self._end) else self._encode("\n"))

    def _joined(self, *parts: bytes) -> bytes:
        return self._encoding.mark + b"".join(part + self._end for part in parts if part)

    def _lines(self, text: str, end: bytes | None = None) -> bytes:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return (self._end if end is None else end).join(map(self._encode, lines))

    def _locate(self, text: str) -> tuple[int, bytes]:
        """Return where a text is, or -1, and its bytes; in a file of both line ends it may have either."""
        parts = [self._lines(text, self._encode(end)) for end in ("\r\n", "\n")]
        return next(((place, part) for part in parts if (place := self._find(part)) >= 0), (-1, parts[-1]))

    def _encode(self, text: str) -> bytes:
        return self._encoding.encode(text)

    def _find(self, part: bytes) -> int:
        place = self._body.find(part)
        while place >= 0 and place % self._encoding.unit:  # the halves of two characters
            place = self._body.find(part, place + 1)
        return place

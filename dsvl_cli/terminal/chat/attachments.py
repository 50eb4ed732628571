"""Finds pictures in a typed line: paths dropped or pasted into it, however the terminal quotes them.

A word is a picture if it names an existing file with a picture's extension, or if it looks like a path (it has a
separator, or is quoted) and the file can be read as a picture. Everything else remains text.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from dsvl_cli.engine.options import IMAGE_MARK
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dsvl_cli.engine.conversation import Picture

# A quoted word (shells write an apostrophe within quotes as '\\''), or a run in which a backslash escapes the next
# character.
_WORD = re.compile(
    r""" "(?P<double>[^"\n]+)" | '(?P<single>[^'\n]+(?:'\\''[^'\n]*)*)' | (?P<bare>(?:\\.|[^\s\\])+\\? | \\) """,
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)")
_TRAILING = ".,;:!?)"


@dataclass(frozen=True, slots=True)
class PictureSources:
    """How a chat obtains pictures; the terminal itself knows no file formats.

    Attributes:
        read: reads a picture from a path or URL; raises ImageError.
        expand: expands globs among paths and URLs; raises DsvlError.
        crop: crops a picture to (x, y, width, height) in pixels; raises DsvlError.
        paste: reads a picture from the clipboard; raises DsvlError with a hint on how to enable it.
        extensions: lower-case file extensions of pictures, with the dot.
    """

    read: Callable[[str], Picture]
    expand: Callable[[Sequence[str]], Sequence[str]]
    crop: Callable[[Picture, int, int, int, int], Picture]
    paste: Callable[[], Picture]
    extensions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Found:
    """The text and pictures of a line.

    Attributes:
        text: the line without the paths at its beginning and end. A path in the middle is replaced by an `<image>`
            mark, so "what do a.png and b.png share?" remains a sentence.
        pictures: in the order in which they occur.
        marked: whether there are marks; if so, `text` has one for each of `pictures`.
    """

    text: str
    pictures: tuple[Picture, ...]
    marked: bool = False


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    end: int
    picture: Picture


def find_pictures(line: str, sources: PictureSources) -> Found:
    """Extract the pictures from a line.

    Raises:
        ImageError: a file with a picture's extension cannot be read.
    """
    words = [*_whole_lines(line, sources)] or [*_words(line, sources)]
    if not words:
        return Found(line, ())
    pictures = tuple(word.picture for word in words)
    gaps = [line[before.end : after.start] for before, after in pairwise(words)]
    head, tail = line[: words[0].start], line[words[-1].end :]
    if not any(gap.strip() for gap in gaps) and not (head.strip() and tail.strip()):
        return Found((head + tail).strip(), pictures)
    text = head + "".join(IMAGE_MARK + gap for gap in [*gaps, tail])
    return Found(text.strip(), pictures, marked=True)


def _whole_lines(line: str, sources: PictureSources) -> Iterator[_Word]:
    """Find paths that take up a whole line: several files dropped at once, with spaces that are not escaped."""
    start = 0
    for piece in line.splitlines(keepends=True):
        text = piece.strip()
        if text and not _WORD.fullmatch(text):
            picture = _read_if_picture(text, sources, quoted=False)
            if picture is not None:
                yield _Word(start, start + len(piece.rstrip()), picture)
        start += len(piece)


def _words(line: str, sources: PictureSources) -> Iterator[_Word]:
    for match in _WORD.finditer(line):
        quoted, raw = _unquote(match)
        for text in (raw, raw.rstrip(_TRAILING)):
            picture = _read_if_picture(text, sources, quoted=quoted)
            if picture is not None:
                yield _Word(match.start(), match.end() - (len(raw) - len(text)), picture)
                break


def _read_if_picture(text: str, sources: PictureSources, *, quoted: bool) -> Picture | None:
    for path in candidate_paths(text):
        known = os.path.splitext(path)[1].lower() in sources.extensions
        like_a_path = quoted or "/" in path or "\\" in path
        # Only look up what may be a path: a long pasted text must not cost a system call per word.
        if not (known or like_a_path) or not os.path.isfile(path):
            continue
        try:
            return sources.read(path)
        except DsvlError:
            if known:
                raise
    return None


def candidate_paths(text: str) -> Iterator[str]:
    r"""Yield the paths that a word may mean: as is (a Windows path), or without escapes, `file://` or `@`."""
    word = text.removeprefix("@")
    if word.lower().startswith("file://"):
        path = unquote(urlsplit(word).path)
        # file:///C:/x names C:/x
        yield path[1:] if re.match(r"/[A-Za-z]:", path) else path
        return
    yield os.path.expanduser(word)
    if "\\" in word:
        yield os.path.expanduser(_ESCAPE.sub(r"\1", word))


def split_arguments(text: str) -> list[str]:
    r"""Split a command's argument into words, unescaping quotes and `\ ` but not the backslashes of Windows paths."""
    words = map(_unquote, _WORD.finditer(text))
    return [word if quoted else _plain_path(word) for quoted, word in words]


def _unquote(match: re.Match[str]) -> tuple[bool, str]:
    if match["bare"]:
        return False, match["bare"]
    return True, match["double"] or match["single"].replace("'\\''", "'")


def _plain_path(word: str) -> str:
    if "://" in word and not word.lower().startswith("file://"):
        return word
    candidates = list(candidate_paths(word))
    return next((path for path in candidates if os.path.exists(path)), candidates[-1])

"""Takes pictures out of a typed line: dropped paths, names after an `@`, and addresses.

A name that can only mean a picture, and is none, is an error: a model that is asked about a picture it never got makes
one up. `/text` sends a line without looking for names.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from dsvl_cli.engine.options import IMAGE_MARK
from dsvl_cli.errors import DsvlError, ImageError, UsageError
from dsvl_cli.terminal.chat.names import WORD, candidate_paths, find_names, unquoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dsvl_cli.engine.conversation import Picture
    from dsvl_cli.terminal.chat.names import Name

_AS_TEXT = "/text LINE sends a line as it is"


def find_file(path: str) -> str | None:
    """Return the path if it is a file, or None."""
    return path if os.path.isfile(path) else None


@dataclass(frozen=True, slots=True)
class PictureSources:
    """How a chat obtains pictures; the terminal itself knows no file formats.

    Attributes:
        read: reads a picture from a path or URL; raises ImageError.
        expand: expands globs among paths and URLs; raises DsvlError.
        crop: crops a picture to (x, y, width, height) in pixels; raises DsvlError.
        paste: reads a picture from the clipboard; raises DsvlError with a hint on how to enable it.
        extensions: lower-case file extensions of pictures, with the dot.
        find: returns the path of the existing file that a path means, or None.
    """

    read: Callable[[str], Picture]
    expand: Callable[[Sequence[str]], Sequence[str]]
    crop: Callable[[Picture, int, int, int, int], Picture]
    paste: Callable[[], Picture]
    extensions: frozenset[str]
    find: Callable[[str], str | None] = find_file


@dataclass(frozen=True, slots=True)
class Found:
    """The text and pictures of a line.

    Attributes:
        text: the line without the names at its beginning and end. A name in a sentence is followed by an `<image>`
            mark: "what do a.png: <image> and b.png: <image> share?"
        pictures: in the order in which they occur.
        marked: whether there are marks; if so, `text` has one for each of `pictures`.
    """

    text: str
    pictures: tuple[Picture, ...]
    marked: bool = False


def find_pictures(line: str, sources: PictureSources) -> Found:
    """Extract the pictures from a line.

    Raises:
        ImageError: a name that can only mean a picture cannot be read or fetched.
    """
    found: list[tuple[Name, Picture]] = []
    for name in find_names(line, sources.find, sources.extensions):
        try:
            found.append((name, sources.read(name.source)))
        except DsvlError as exc:
            if name.is_certain:
                raise _explain(exc, name.source) from exc
    if not found:
        return Found(line, ())
    names, pictures = [name for name, _ in found], tuple(picture for _, picture in found)
    gaps = [line[before.end : after.start] for before, after in pairwise(names)]
    head, tail = line[: names[0].start], line[names[-1].end :]
    if not any(gap.strip() for gap in gaps) and not (head.strip() and tail.strip()):
        return Found((head + tail).strip(), pictures)
    # The names remain if one of them is in the middle of a sentence.
    in_sentence = any(
        _has_words(head + "".join(gaps[:index])) and _has_words("".join(gaps[index:]) + tail)
        for index in range(len(names))
    )
    text = head
    for name, gap in zip(names, [*gaps, tail], strict=True):
        label = name.label if in_sentence and IMAGE_MARK not in name.label else ""
        text += (f"{label}: " if label else "") + IMAGE_MARK + gap
    return Found(text.strip(), pictures, marked=True)


def refuse_new_names(text: str, before: str, sources: PictureSources) -> None:
    """Check that an edited message names no picture that it did not name before: only a new message attaches one.

    Raises:
        UsageError: it does.
    """
    known = {name.source for name in find_names(before, sources.find, sources.extensions)}
    for name in find_names(text, sources.find, sources.extensions):
        if name.is_certain and name.source not in known:
            raise UsageError(
                f"{name.source}: an edited message keeps its pictures and gets no others",
                f"attach it with a new message; {_AS_TEXT}",
            )


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _explain(error: DsvlError, source: str) -> ImageError:
    way = error.hint
    if "*" in source:
        way = f"/image {source} attaches what it matches"
    elif os.path.isdir(source):
        way = f"/image {shlex.quote(os.path.join(source, '*'))} attaches what is in it"
    return ImageError(error.message, f"{way}; {_AS_TEXT}" if way else _AS_TEXT)


def split_arguments(text: str) -> list[str]:
    r"""Split a command's argument into words, unescaping quotes and `\ ` but not the backslashes of Windows paths."""
    words = ((match, unquoted(match)) for match in WORD.finditer(text))
    return [_plain_path(match["bare"]) if content is None else content for match, content in words]


def _plain_path(word: str) -> str:
    if "://" in word and not word.lower().startswith("file://"):
        return word
    candidates = list(candidate_paths(word))
    return next((path for path in candidates if os.path.exists(path)), candidates[-1])

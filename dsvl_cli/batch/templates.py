"""Prompts with variables, filled in for each picture: `Is {name} a good name? The caption was: {caption}`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources.webdataset import TARS, read_text_member
from dsvl_cli.engine.encodings import decode_text, read_text
from dsvl_cli.engine.options import IMAGE_MARK
from dsvl_cli.engine.pictures.access import is_url
from dsvl_cli.errors import DsvlError, ImageError, UsageError

VARIABLES = ("name", "folder", "caption")
# Braces are common in prompts, as in examples of JSON: what is neither a name in braces nor doubled stays as it is.
_MARKS = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}")


def find_variables(prompt: str) -> set[str]:
    """Return the names of a prompt's variables.

    Raises:
        UsageError: there is no such variable.
    """
    found = {name for text, name in _pieces(prompt) if name}
    if unknown := sorted(found.difference(VARIABLES)):
        known = ", ".join(f"{{{name}}}" for name in VARIABLES)
        raise UsageError(
            f"there is no variable {{{unknown[0]}}} for prompts",
            f"use {known}, or {{{{{unknown[0]}}}}} for the text itself",
        )
    return found


def fill(prompt: str, value_of: Callable[[str], str]) -> str:
    """Return a prompt with its variables replaced, and doubled braces by single ones."""
    return "".join(value_of(name) if name else text for text, name in _pieces(prompt))


def fill_prompts(prompts: Mapping[str, str], item: Item, extension: str = ".txt") -> Mapping[str, str]:
    """Return prompts for an item.

    Args:
        prompts: the prompts by question name.
        item: the picture.
        extension: that of the text file beside the picture, whose text is `{caption}`.

    Raises:
        ImageError: the picture has no caption.
    """

    def value_of(name: str) -> str:
        value = _caption(item, extension) if name == "caption" else _names(item)[VARIABLES.index(name)]
        return value.replace(IMAGE_MARK, "(image)")  # a mark in a name or a caption stands for no picture

    return {name: fill(prompt, value_of) for name, prompt in prompts.items()}


def _pieces(prompt: str) -> Iterator[tuple[str, str]]:
    """Yield texts, each with the name of the variable that it stands for, or ""."""
    end = doubled = 0
    for mark in _MARKS.finditer(prompt):
        yield prompt[end : mark.start()], ""
        end = mark.end()
        if mark[1]:
            yield mark[0], mark[1]
        elif mark[0] == "{{":
            doubled += 1
            yield "{", ""
        elif doubled:
            doubled -= 1
            yield "}", ""
        else:  # the ends of two objects in JSON
            yield "}}", ""
    yield prompt[end:], ""


def _names(item: Item) -> tuple[str, str]:
    """Return the name of a picture without its extension, and that of its folder."""
    holder, mark, member = item.path.partition("::")
    if is_url(item.path):
        path = item.path
    elif mark and os.path.isfile(holder):
        path = f"{os.path.splitext(os.path.abspath(holder))[0].removesuffix('.tar')}/{member}"
    else:
        path = os.path.abspath(item.path)
    folder, name = os.path.split(path)
    return os.path.splitext(name)[0], os.path.basename(folder)


def _caption(item: Item, extension: str) -> str:
    holder, mark, member = item.path.partition("::")
    if mark and holder.lower().endswith(TARS) and os.path.isfile(holder):
        data = read_text_member(holder, member, extension)
        if data is None:
            raise ImageError(f"{item.path}: has no {{caption}}: the archive has no {extension} of it")
        return _stripped(decode_text, data, item.path)
    path = Path(item.path)
    if item.own_id or item.id != item.path or mark or is_url(item.path):
        raise ImageError(f"{item.path}: has no {{caption}}: only files have text files beside them")
    places = [path.with_suffix(extension), path.with_name(path.name + extension)]
    place = next((place for place in places if place.is_file() and not place.is_symlink()), None)
    if place is None:
        raise ImageError(f"{item.path}: has no {{caption}}: {places[0]} does not exist")
    return _stripped(read_text, place)


def _stripped(read: Callable[..., str], *arguments: object) -> str:
    try:
        return read(*arguments).strip()
    except DsvlError as exc:
        raise ImageError(exc.message, exc.hint) from exc

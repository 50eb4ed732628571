"""Reads a checkpoint's `tokenizer.json`, and refuses one that could take the time or the memory of the machine.

The library runs what the file describes in compiled code, which cannot be interrupted: patterns that try each way to
match a text, and replacements that make a megabyte of each letter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dsvl_cli.errors import DsvlError

_LARGEST_FILE = 64 * 2**20  # bytes; DeepSeek's has 5 MB
_LARGEST_GROWTH = 64  # characters that may come of one
_AGAIN = "download the checkpoint again"


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.

    Raises:
        DsvlError: the file cannot be read, or describes what is too expensive.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError("too large")
        tokenizer = Tokenizer.from_file(str(path))
        parts = [tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder]
        pages = [json.loads(part.__getstate__()) for part in parts if part is not None]
    except Exception as exc:  # tokenizers raises bare Exception
        raise DsvlError(f"{path} cannot be read", _AGAIN) from exc
    for page in pages:
        growth = 1
        for step in _walk(page):
            pattern = step.get("pattern")
            if isinstance(pattern, dict) and is_explosive(str(pattern.get("Regex", ""))):
                raise DsvlError(f"{path} has a pattern that may take for ever", _AGAIN)
            growth *= max(1, *(len(str(step.get(key) or "")) for key in ("content", "prepend")))
        if growth > _LARGEST_GROWTH:
            raise DsvlError(f"{path} makes {growth:,} characters of one", _AGAIN)
    return tokenizer


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a JSON value."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _walk(part)


def is_explosive(pattern: str) -> bool:
    """Whether a regular expression repeats a group that itself has a repetition or alternatives.

    Only such patterns need exponential time. Those of published tokenizers repeat single characters and classes.
    """
    groups = [False]  # for each open group, whether something in it can match in several ways
    last = False  # whether what was read last is a group that can
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        if letter == "\\":
            position, last = position + 2, False
            continue
        if letter == "[":
            position, last = _end_of_class(pattern, position), False
            continue
        if letter == "(":
            groups.append(False)
            last = False
        elif letter == ")":
            last = groups.pop() if len(groups) > 1 else False
            groups[-1] = groups[-1] or last
        elif letter in "*+{":
            if last:
                return True
            groups[-1], last = True, False
        elif letter == "|" and len(groups) > 1:
            groups[-1], last = True, False
        else:
            last = False
        position += 1
    return False


def _end_of_class(pattern: str, position: int) -> int:
    """Return the position behind a class of characters, which may hold others."""
    depth = 0
    while position < len(pattern):
        letter = pattern[position]
        position += 2 if letter == "\\" else 1
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if not depth:
            break
    return position

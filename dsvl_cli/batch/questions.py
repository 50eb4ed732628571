"""Reads several questions per picture from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from dsvl_cli.batch.row import FIELDS
from dsvl_cli.engine.encodings import read_text
from dsvl_cli.errors import DsvlError

_EXAMPLE = 'write one line per question: colour = "What colour is it?"'
_TAKEN = {*FIELDS, "prompts", "answers", "sidecar"}


def read_questions(path: Path) -> dict[str, str]:
    """Read `name = "question"` lines; the name becomes a column of the output.

    Raises:
        DsvlError: the file cannot be read or has other content.
    """
    try:
        values = tomllib.loads(read_text(path))
    except ValueError as exc:
        raise DsvlError(f"{path}: not TOML: {exc}", _EXAMPLE) from exc
    for name, question in values.items():
        if not isinstance(question, str) or not question.strip():
            raise DsvlError(f"{path}: {name} is not a question", _EXAMPLE)
        if name in _TAKEN or not name.strip():
            raise DsvlError(f"{path}: a question cannot be named {name!r}", "that column already exists; rename it")
    if not values:
        raise DsvlError(f"{path}: the file contains no questions", _EXAMPLE)
    return values

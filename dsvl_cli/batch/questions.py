"""Several questions about each picture, from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from dsvl_cli.batch.row import FIELDS
from dsvl_cli.errors import DsvlError

_EXAMPLE = 'write one line for each question: colour = "What colour is it?"'
_TAKEN = {*FIELDS, "prompts", "answers", "sidecar"}


def read_questions(path: Path) -> dict[str, str]:
    """Read `name = "question"` lines; the name becomes a column of the output.

    Raises:
        DsvlError: there is no such file, or something else in it.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise DsvlError(f"{path}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise DsvlError(f"{path}: not TOML: {exc}", _EXAMPLE) from exc
    for name, question in values.items():
        if not isinstance(question, str) or not question.strip():
            raise DsvlError(f"{path}: {name} is no question", _EXAMPLE)
        if name in _TAKEN or not name.strip():
            raise DsvlError(f"{path}: a question cannot be called {name!r}", "that is a column already; rename it")
    if not values:
        raise DsvlError(f"{path}: there is no question in it", _EXAMPLE)
    return values

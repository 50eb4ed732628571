"""Reads several questions per picture from a TOML file: texts, or tables that also say what form the answers have."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsvl_cli.batch.row import FIELDS, probability_column, sample_columns
from dsvl_cli.engine.constraints import Constraint, OneOf
from dsvl_cli.engine.encodings import read_text
from dsvl_cli.engine.schemas import check_schema, read_schema
from dsvl_cli.errors import DsvlError

_EXAMPLE = 'write one line per question: colour = "What colour is it?"'
_TAKEN = {*FIELDS, "prompts", "answers", "sidecar"}
_KEYS = ("prompt", "choices", "type", "schema")
_TYPES: Mapping[str, Any] = {
    "string": None,
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string"}},
}


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions by name.

    Attributes:
        prompts: what is asked.
        constraints: what form the answers to some of them must have.
    """

    prompts: dict[str, str]
    constraints: dict[str, Constraint] = field(default_factory=dict)

    def check_columns(self, samples: int) -> None:
        """Refuse questions with the name of a column that another one has for its samples.

        Raises:
            DsvlError: names it.
        """
        for name in self.prompts if samples > 1 else ():
            for column in sample_columns(name):
                if column in self.prompts:
                    raise DsvlError(f"a question cannot be named {column!r}", f"{name} has that column; rename one")


def read_questions(path: Path) -> Questions:
    """Read `name = "question"` lines and tables; the name becomes a column of the output.

    Raises:
        DsvlError: the file cannot be read or has other content.
    """
    try:
        values = tomllib.loads(read_text(path))
    except ValueError as exc:
        raise DsvlError(f"{path}: not TOML: {exc}", _EXAMPLE) from exc
    questions = Questions({})
    for name, value in values.items():
        question = value.get("prompt") if isinstance(value, dict) else value
        if not isinstance(question, str) or not question.strip():
            raise DsvlError(f"{path}: {name} is not a question", _EXAMPLE)
        if name in _TAKEN or not name.strip():
            raise DsvlError(f"{path}: a question cannot be named {name!r}", "that column already exists; rename it")
        questions.prompts[name] = question
        if isinstance(value, dict):
            try:
                constraint = _read_constraint(value)
            except DsvlError as error:
                raise DsvlError(f"{path}: {name}: {error.message}", error.hint) from error
            if constraint is not None:
                questions.constraints[name] = constraint
    for name, constraint in questions.constraints.items():
        if isinstance(constraint, OneOf) and (column := probability_column(name)) in values:
            raise DsvlError(f"{path}: a question cannot be named {column!r}", f"{name} has that column; rename one")
    if not values:
        raise DsvlError(f"{path}: the file contains no questions", _EXAMPLE)
    return questions


def _read_constraint(table: Mapping[str, Any]) -> Constraint | None:
    unknown = next((key for key in table if key not in _KEYS), None)
    if unknown is not None:
        raise DsvlError(f"there is no {unknown!r} in a question", f"a question may have {', '.join(_KEYS)}")
    given = [key for key in _KEYS[1:] if key in table]
    if len(given) > 1:
        raise DsvlError(f"{' and '.join(given)} contradict each other", "use one of them")
    if "choices" in table:
        choices = table["choices"]
        if not isinstance(choices, list) or not all(isinstance(text, str) for text in choices):
            raise DsvlError("choices is not a list of texts", 'choices = ["Red", "Green"]')
        return OneOf(tuple(choices))
    if "type" in table:
        kind = table["type"]
        if kind not in _TYPES:
            raise DsvlError(f"type is {kind!r}; it must be one of {', '.join(_TYPES)}")
        return None if _TYPES[kind] is None else check_schema(_TYPES[kind])
    if "schema" in table:
        schema = table["schema"]
        return read_schema(schema) if isinstance(schema, str) else check_schema(schema)
    return None

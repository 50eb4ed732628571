"""What form an answer must have: one of a list, or JSON that a schema describes. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dsvl_cli.errors import UsageError

YES_NO = ("Yes", "No")


@dataclass(frozen=True, slots=True)
class OneOf:
    """The answer is one of several texts, each of which gets a probability.

    Attributes:
        choices: at least two; neither empty nor the same but for space around them.

    Raises:
        UsageError: the list is not one.
    """

    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        if any(not choice.strip() for choice in self.choices):
            raise UsageError("one of the choices is empty", "write them as red,green,blue")
        stripped = [choice.strip() for choice in self.choices]
        for index, choice in enumerate(stripped):
            if choice in stripped[:index]:
                raise UsageError(f"the choice {choice!r} is given twice", "give each choice once")
        if len(self.choices) < 2:
            raise UsageError("there must be at least two choices", "write them as red,green,blue")


@dataclass(frozen=True)
class JsonSchema:
    """The answer is JSON that is valid under a JSON Schema.

    Attributes:
        text: the schema, as JSON.
    """

    text: str

    @cached_property
    def value(self) -> Any:
        """The schema as an object."""
        return json.loads(self.text)

    @classmethod
    def of(cls, value: Any) -> JsonSchema:
        """Make one of an object."""
        return cls(json.dumps(value, ensure_ascii=False))


Constraint = OneOf | JsonSchema


def to_json(constraint: Constraint) -> dict[str, Any]:
    """Return a constraint as JSON values; see `from_json`."""
    return {"choices": list(constraint.choices)} if isinstance(constraint, OneOf) else {"schema": constraint.value}


def from_json(value: dict[str, Any]) -> Constraint:
    """Read what `to_json` returned.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(choices := value.get("choices"), list) and all(isinstance(text, str) for text in choices):
        return OneOf(tuple(choices))
    if "schema" not in value:
        raise ValueError("not a constraint")
    return JsonSchema.of(value["schema"])


# One line, with a space after commas and colons: what most JSON looks like, and no white space to get lost in.
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

ANY_OBJECT = JsonSchema('{"type": "object"}')


def split_choices(text: str) -> tuple[str, ...]:
    """Split `red,green,blue`, or one choice a line where the text has several lines."""
    parts = text.splitlines() if "\n" in text.strip() else text.split(",")
    return tuple(part.strip() for part in _without_last_empty(parts))


def _without_last_empty(parts: Sequence[str]) -> Sequence[str]:
    """Leave out what follows the last line feed of a file, and empty lines at its end."""
    end = len(parts)
    while end > 1 and not parts[end - 1].strip():
        end -= 1
    return parts[:end]


def write_grammar(schema: JsonSchema, prefix: str = "") -> str:
    """Return the grammar of an answer for llguidance, in its Lark syntax: the prefix, then JSON."""
    start = f"{json.dumps(prefix)} answer" if prefix else "answer"
    return f"start: {start}\nanswer: %json {json.dumps(styled(schema.value))}\n"


def styled(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with our options for llguidance, in place of any of its own, which may switch checks off."""
    return {**schema, "x-guidance": _STYLE}

"""Reads what `--schema` takes, a file, JSON or a short form, and refuses what cannot be followed. No torch here.

The short form is that of the tool `llm`: `name, age int, tags list: what is seen`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from dsvl_cli.engine.constraints import YES_NO, Constraint, JsonSchema, OneOf, split_choices, styled
from dsvl_cli.engine.conversation import FinishReason
from dsvl_cli.engine.encodings import read_text
from dsvl_cli.errors import InvalidAnswer, UsageError

_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string"}},
}
_NAMES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list"}
_FIELD = re.compile(r"(?P<name>[^\W\d][\w-]*)(?:\s+(?P<type>\w+))?\s*(?::\s*(?P<description>.*))?", re.DOTALL)
_EXAMPLE = "write a JSON Schema, a file of one, or a short form such as 'colour, count int, items list: what is seen'"
_FLATTER = "use $ref for parts that repeat"
_LONGEST_QUOTE = 40
_COMMON = {"properties", "type", "object", "schema", "is", "items"}  # in errors they are words


def read_constraint(choices: str | None, yes_no: bool, schema: str | None) -> Constraint | None:
    """Read the options that say what form an answer must have; None for a free one.

    Args:
        choices: a list such as `red,green,blue`, or the path of a file with one choice a line.
        yes_no: the choices are Yes and No.
        schema: see `read_schema`.

    Raises:
        UsageError: several are given, or one of them is wrong.
        DsvlError: a file cannot be read.
    """
    given = [
        name for name, value in (("--choices", choices), ("--yes-no", yes_no or None), ("--schema", schema)) if value
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} contradict each other", "use one of them")
    if choices is not None:
        is_path = Path(choices).suffix or os.sep in choices or os.path.isfile(choices)
        is_list = "," in choices or "\n" in choices or not is_path
        return OneOf(split_choices(choices if is_list else read_text(choices)))
    if yes_no:
        return OneOf(YES_NO)
    return None if schema is None else read_schema(schema)


def explain(schema: JsonSchema) -> str:
    """Return what a prompt needs beside the question: what the fields mean; "" if the schema does not say."""
    lines = [f"{'.'.join(path)}: {text}" for path, text in _list_descriptions(schema.value)]
    return "\n".join(["Answer in JSON with these fields.", *lines]) if lines else ""


def add_explanation(prompt: str, constraint: Constraint | None) -> str:
    """Return a prompt with what its schema says about the fields."""
    return "\n".join(filter(None, (prompt, explain(constraint) if isinstance(constraint, JsonSchema) else "")))


def _list_descriptions(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the names of the properties that have a description, from the outside in."""
    properties = value.get("properties") if isinstance(value, dict) else None
    for name, part in properties.items() if isinstance(properties, dict) else ():
        if isinstance(part, dict):
            if isinstance(text := part.get("description"), str) and text.strip():
                yield (*path, name), " ".join(text.split())
            yield from _list_descriptions(part, (*path, name))
            yield from _list_descriptions(part.get("items"), (*path, name))


def read_schema(argument: str) -> JsonSchema:
    """Read a schema, and see that it can be followed.

    Args:
        argument: JSON, the path of a file with JSON, or the short form.

    Raises:
        UsageError: it is none of these, or asks for something that is not supported.
        DsvlError: the file cannot be read.
    """
    text = argument.strip()
    if text.startswith("{"):
        return check_schema(_parse(text, "the schema"))
    if text.casefold().endswith(".json") or os.path.isfile(argument):
        return check_schema(_parse(read_text(argument), argument))
    return check_schema(parse_short_form(text))


def parse_short_form(text: str) -> dict[str, Any]:
    """Return the schema of an object with the given fields, all of them required.

    Raises:
        UsageError: a field is no name with an optional type.
    """
    parts = text.splitlines() if "\n" in text else text.split(",")
    properties: dict[str, Any] = {}
    for part in filter(None, map(str.strip, parts)):
        match = _FIELD.fullmatch(part)
        if match is None:
            raise UsageError(f"{part[:_LONGEST_QUOTE]!r} is not a field of a schema", _EXAMPLE)
        name, kind = match["name"], match["type"] or "str"
        kind = _NAMES.get(kind, kind)
        if kind not in _TYPES:
            raise UsageError(f"{kind} is not a type of a field", f"the types are {', '.join(_TYPES)}")
        if name in properties:
            raise UsageError(f"the field {name} is given twice", _EXAMPLE)
        properties[name] = dict(_TYPES[kind])
        if match["description"]:
            properties[name]["description"] = match["description"].strip()
    if not properties:
        raise UsageError("the schema is empty", _EXAMPLE)
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def check_schema(value: Any) -> JsonSchema:
    """Refuse what is no JSON Schema, and what llguidance cannot keep an answer to.

    Raises:
        UsageError: it names the keyword and its place.
    """
    if not isinstance(value, dict):
        raise UsageError("the schema is not a JSON object", _EXAMPLE)
    try:
        return _check(JsonSchema.of(value))
    except TypeError as exc:  # TOML has dates
        raise UsageError(f"the schema is not JSON: {exc}", _EXAMPLE) from exc
    except RecursionError as exc:
        raise UsageError("the schema is nested too deeply", _FLATTER) from exc


@lru_cache(maxsize=64)
def _check(schema: JsonSchema) -> JsonSchema:
    """Check a schema once: in a file of requests each line has it, and a check takes 3 ms."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from llguidance import LLMatcher

    value = schema.value
    try:
        Draft202012Validator.check_schema(value)
        # Not with the grammar of an answer: its errors would quote that grammar.
        obstacle = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(styled(value)))
    except ValueError as exc:
        raise UsageError("the schema has a number that is too large, or half of a surrogate pair") from exc
    except SchemaError as exc:
        place = "/".join(map(str, exc.absolute_path))
        raise UsageError(
            f"the schema is not a JSON Schema: {place or 'at its top'}: {_first_line(exc.message)}"
        ) from exc
    if obstacle:
        raise _refuse(value, obstacle)
    return schema


def read_value(schema: JsonSchema, text: str, finish_reason: FinishReason) -> Any:
    """Return the JSON of an answer.

    Raises:
        InvalidAnswer: it was cut, or is not valid under the schema; the message says which.
    """
    if finish_reason == "length":
        raise InvalidAnswer("the answer was cut before its JSON was complete", "allow more with --max-new-tokens")
    try:
        value = json.loads(text)
        error = next(_validator()(schema.value).iter_errors(value), None)
    except RecursionError as exc:
        raise InvalidAnswer("the answer is nested too deeply to be checked") from exc
    except ValueError as exc:
        why = "it was interrupted" if finish_reason == "interrupted" else "it ended too early"
        raise InvalidAnswer(f"the answer is not complete JSON: {why}") from exc
    if error is not None:
        raise InvalidAnswer(
            f"the answer is not valid under the schema: {error.json_path}: {_first_line(error.message)}"
        )
    return value


@cache
def _validator() -> Any:
    """Return the validator for what a grammar leaves: it cannot count keys that are not listed, nor see one repeated.

    Patterns the grammar has kept to, in linear time: Python's expressions would take for ever on some that come from a
    stranger's request.
    """
    from jsonschema import Draft202012Validator, validators

    extend: Any = validators.extend
    return extend(Draft202012Validator, {"pattern": lambda *_: ()})


def _refuse(value: Any, obstacle: str) -> UsageError:
    """Say what llguidance does not support, and where in the schema it is."""
    lines = obstacle.strip().splitlines()
    why = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"  # those between quote a pattern
    named = {word.casefold() for word in re.findall(r"[A-Za-z$]+", why)} | ({"pattern"} if "regex" in why else set())
    places = [path for path in _walk(value) if path[-1].casefold() in named - _COMMON]
    place = f"{'/'.join(places[0])}: " if places else ""
    if "oneOf" in why:
        return UsageError(f"the schema is not supported: {place}its alternatives may overlap", "use anyOf")
    if why.startswith("Unimplemented keys"):
        keys = re.findall(r'"([^"]+)"', why)
        why = f"answers cannot be kept to {', '.join(keys)}"
    return UsageError(f"the schema is not supported: {place}{why}", "leave it out, and check it in what you do next")


def _walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each key in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, str(key))
        yield from _walk(part, (*path, str(key)))


def _parse(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise UsageError(f"{name} is not JSON: {exc}", _EXAMPLE) from exc
    except RecursionError as exc:
        raise UsageError(f"{name} is nested too deeply", _FLATTER) from exc


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "unknown error"

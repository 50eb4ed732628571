from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.schema_examples import SCHEMAS
from dsvl_cli.engine.constraints import JsonSchema
from dsvl_cli.engine.schemas import check_schema, parse_short_form, read_constraint, read_schema, read_value
from dsvl_cli.errors import DsvlError, UsageError


def test_the_short_form_names_fields_types_and_what_they_mean() -> None:
    schema = parse_short_form("colour, count int, items list: what is seen, share float, is_red bool")
    assert schema["required"] == ["colour", "count", "items", "share", "is_red"]
    assert schema["properties"]["items"] == {
        "type": "array",
        "items": {"type": "string"},
        "description": "what is seen",
    }
    kinds = {name: value["type"] for name, value in schema["properties"].items()}
    assert kinds == {
        "colour": "string",
        "count": "integer",
        "items": "array",
        "share": "number",
        "is_red": "boolean",
    }


def test_lines_may_hold_commas() -> None:
    schema = parse_short_form("colour: red, green or blue\nétiquette string\n")
    assert schema["properties"]["colour"]["description"] == "red, green or blue"
    assert list(schema["properties"]) == ["colour", "étiquette"]


def test_a_short_form_and_a_choice_may_be_longer_than_the_name_of_a_file() -> None:
    names = [f"field{index}" for index in range(60)]
    assert list(read_schema(", ".join(names)).value["properties"]) == names
    with pytest.raises(UsageError, match="at least two choices"):
        read_constraint("x" * 300, False, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the schema is empty"),
        (" , ", "the schema is empty"),
        ("a b c", "'a b c' is not a field"),
        ("1st", "'1st' is not a field"),
        ("count integ", "integ is not a type"),
        ("a, b, a int", "the field a is given twice"),
        ('{"type": ', "the schema is not JSON"),
    ],
)
def test_what_is_no_schema_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_schema(text)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], "not a JSON object"),
        ({"type": "objet"}, "not a JSON Schema: type: 'objet'"),
        ({"properties": {"a": {"minimum": "1"}}}, "not a JSON Schema: properties/a/minimum"),
        ({"properties": {"a": {"not": {"type": "string"}}}}, "properties/a/not: answers cannot be kept to not"),
        ({"properties": {"a": {"items": {"dependentRequired": {}}}}}, "properties/a/items/dependentRequired"),
        ({"properties": {"a": {"format": "shoe size"}}}, "properties/a/format: .*shoe size"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "properties/a/pattern: .*look-around"),
        ({"properties": {"a": {"oneOf": [{"type": "string"}, {"minLength": 2}]}}}, "properties/a/oneOf: .*may overlap"),
        ({"minLength": 5, "maxLength": 2, "type": "string"}, "minLength"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_by_keyword_and_place(schema: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_schema(schema)
    assert "\n" not in caught.value.message


def nested(depth: int) -> dict[str, Any]:
    return {"properties": {"a": nested(depth - 1)}} if depth else {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (nested(300), "nested too deeply"),
        ({"const": "\ud800"}, "half of a surrogate pair"),
        ({"const": 10**400}, "a number that is too large"),
    ],
)
def test_what_the_libraries_cannot_take_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_schema(schema)


def test_an_answer_that_is_nested_too_deeply_is_no_answer() -> None:
    schema = check_schema({"type": "array", "items": {"$ref": "#"}})
    assert read_value(schema, "[[]]", "stop") == [[]]
    with pytest.raises(DsvlError, match="nested too deeply"):
        read_value(schema, "[" * 900 + "]" * 900, "stop")


def test_options_of_the_library_in_a_schema_switch_nothing_off() -> None:
    with pytest.raises(UsageError, match="properties/a/not"):
        check_schema({"x-guidance": {"lenient": True}, "properties": {"a": {"not": {}}}})


@pytest.mark.fault("schemas that could stop a run")
def test_no_pattern_is_tried_in_every_way() -> None:
    """Python's expressions would need 2^40 steps to see that this text does not match."""
    schema = JsonSchema.of({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    assert read_value(schema, json.dumps({"a": "a" * 40 + "!"}), "stop")


def test_nothing_is_fetched() -> None:
    with pytest.raises(UsageError, match=r"properties/a.*http://nowhere\.test"):
        check_schema({"properties": {"a": {"$ref": "http://nowhere.test/schema.json"}}})


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    path.write_text('\ufeff{"type": "object"}', "utf-8")
    assert read_schema(str(path)) == JsonSchema('{"type": "object"}')


def test_every_example_is_supported() -> None:
    for schema in SCHEMAS:
        assert check_schema(schema).value == schema
    assert len({json.dumps(schema) for schema in SCHEMAS}) == 50


def test_keys_that_a_grammar_cannot_count_are_checked_afterwards() -> None:
    schema = check_schema({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1})
    assert read_value(schema, '{"a": 1}', "stop") == {"a": 1}
    with pytest.raises(DsvlError, match="not valid under the schema"):
        read_value(schema, "{}", "stop")


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ('{"a', "length", "cut before its JSON was complete"),
        ('{"a', "stop", "it ended too early"),
        ('{"a', "interrupted", "it was interrupted"),
    ],
)
def test_half_an_answer_says_why(text: str, reason: Any, message: str) -> None:
    with pytest.raises(DsvlError, match=message):
        read_value(JsonSchema("{}"), text, reason)


def test_a_file_that_is_missing_is_an_error() -> None:
    with pytest.raises(DsvlError, match=r"missing\.json: cannot be read: No such file"):
        read_schema("missing.json")

"""Fifty JSON Schemas of the kinds that people write: nested objects, arrays, enums, alternatives, patterns, bounds."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COLOUR: Schema = {"enum": ["red", "green", "blue", "yellow", "black", "white"]}
KIND: Schema = {"enum": ["circle", "square", "triangle", "star"]}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 9}


def record(required: bool = True, **properties: Any) -> Schema:
    """Return the schema of an object with these properties and no others."""
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(properties)} if required else schema


def array(items: Any, **limits: int) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": items, **limits}


def pattern(text: str) -> Schema:
    """Return the schema of a string that matches a regular expression."""
    return {"type": "string", "pattern": text}


def with_definitions(definitions: Schema, **properties: Any) -> Schema:
    """Return a schema whose properties refer to definitions."""
    return {**record(**properties), "$defs": definitions}


def ref(name: str) -> Schema:
    """Return a reference to a definition."""
    return {"$ref": f"#/$defs/{name}"}


SHAPE = record(kind=KIND, colour=COLOUR)
POINT = record(x={"type": "number", "minimum": 0, "maximum": 1}, y={"type": "number", "minimum": 0, "maximum": 1})
NODE: Schema = {
    "type": "object",
    "properties": {"kind": KIND, "inside": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["kind", "inside"],
    "additionalProperties": False,
}

SCHEMAS: tuple[Schema, ...] = (
    # Flat objects.
    record(text=TEXT),
    record(colour=COLOUR),
    record(colour=COLOUR, kind=KIND),
    record(count={"type": "integer"}),
    record(count=COUNT, colour=COLOUR, described={"type": "boolean"}),
    record(required=False, colour=COLOUR, kind=KIND),
    record(title={"type": "string", "maxLength": 12}),
    record(title={"type": "string", "minLength": 3, "maxLength": 20}),
    record(nothing={"type": "null"}),
    record(sure={"type": "number", "minimum": 0, "maximum": 1}),
    # Numbers with bounds.
    record(n={"type": "integer", "minimum": -5, "maximum": 5}),
    record(n={"type": "integer", "exclusiveMinimum": 10, "exclusiveMaximum": 20}),
    record(n={"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}),
    record(n={"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}),
    record(n={"type": "integer", "minimum": 1000, "maximum": 1999}),
    # Patterns and formats.
    record(code=pattern("^[A-Z]{3}-[0-9]{2}$")),
    record(hex=pattern("^#[0-9a-f]{6}$")),
    record(word=pattern("^(circle|square)s?$")),
    record(day={"type": "string", "format": "date"}),
    record(when={"type": "string", "format": "date-time"}),
    record(id={"type": "string", "format": "uuid"}),
    record(mail={"type": "string", "format": "email"}),
    record(address={"type": "string", "format": "ipv4"}),
    # Arrays.
    record(colours=array(COLOUR, minItems=1, maxItems=3)),
    record(counts=array(COUNT, minItems=2, maxItems=2)),
    record(shapes=array(SHAPE, minItems=1, maxItems=2)),
    record(grid=array(array(COUNT, minItems=2, maxItems=2), minItems=2, maxItems=2)),
    record(pair={"type": "array", "prefixItems": [KIND, COUNT], "items": False, "minItems": 2}),
    record(texts=array({"type": "string", "maxLength": 8}, maxItems=3)),
    array(COLOUR, maxItems=4),
    # Nested objects.
    record(shape=SHAPE),
    record(shape=record(kind=KIND, place=POINT)),
    record(a=record(b=record(c=record(d=COUNT)))),
    record(first=SHAPE, second=SHAPE, same={"type": "boolean"}),
    record(box=array(POINT, minItems=2, maxItems=2), label=KIND),
    # Alternatives.
    record(value={"anyOf": [COUNT, KIND]}),
    record(value={"anyOf": [{"type": "null"}, SHAPE]}),
    record(value={"oneOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "boolean"}]}),
    record(value={"oneOf": [{"const": "none"}, SHAPE]}),
    record(value={"type": ["integer", "null"], "minimum": 0, "maximum": 3}),
    {"anyOf": [record(circle=COLOUR), record(square=COLOUR)]},
    {"oneOf": [record(kind={"const": "one"}, shape=SHAPE), record(kind={"const": "none"})]},
    {"allOf": [{"type": "object", "properties": {"a": COUNT}}, {"properties": {"b": KIND}}], "required": ["a", "b"]},
    # Constants, references, maps.
    record(version={"const": 2}, kind=KIND),
    with_definitions({"shape": SHAPE}, one=ref("shape"), other=ref("shape")),
    with_definitions({"shape": SHAPE}, shapes=array(ref("shape"), maxItems=2)),
    with_definitions({"node": NODE}, root=ref("node")),
    {"type": "object", "properties": {"kind": KIND}, "required": ["kind"]},
    {"type": "object", "additionalProperties": COUNT, "maxProperties": 1},
    {"enum": ["circle", "square", 4, None, True]},
)  # fmt: skip

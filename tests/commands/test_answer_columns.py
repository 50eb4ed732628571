"""`dsvl batch` with --choices, --yes-no, --schema and questions that say what form their answers have."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest

from dsvl_cli.batch.questions import read_questions
from dsvl_cli.batch.row import Row
from dsvl_cli.cli import main
from dsvl_cli.engine.constraints import JsonSchema
from dsvl_cli.errors import DsvlError

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PICTURES = [str(EXAMPLES / name) for name in ("red-circle.png", "white-cross.png")]
QUESTIONS = """
described = "Describe this image."

[colour]
prompt = "What colour is the circle?"
choices = ["Red.", "Green.", "Blue."]

[count]
prompt = "How many shapes are there?"
schema = {type = "integer", minimum = 0, maximum = 9}

[drawn]
prompt = "Is it drawn?"
type = "boolean"

[shape]
prompt = "What is it?"
schema = "big bool, sides int"
"""


def batch(out: Path | str, *arguments: str) -> int:
    return main(["batch", *PICTURES, "-o", str(out), *arguments, "--model", "tiny", "--dtype", "float32"])


def read_rows(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(rows, key=lambda row: row["path"])


@pytest.fixture
def ask(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "q.toml"
    path.write_text(QUESTIONS)
    return ("--ask", str(path))


def test_a_choice_comes_with_its_probability_and_low_ones_are_suspect(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    question = ("-p", "Is there a circle?")
    assert batch(out, *question, "--yes-no", "--min-probability", "0.5") == 0
    rows = read_rows(out)
    assert [row["text"] for row in rows] == ["Yes", "No"]
    for row in rows:
        assert row["probability"] == row["probabilities"][row["text"]] > 0.9
        assert (row["status"], row["suspicion"]) == ("answered", None)
    assert batch(tmp_path / "sure.jsonl", *question, "--yes-no", "--min-probability", "1") == 0
    for row in read_rows(tmp_path / "sure.jsonl"):
        assert row["status"] == "suspect"
        assert row["suspicion"].endswith("is below 1")


def test_every_question_has_the_form_that_it_asks_for(tmp_path: Path, ask: tuple[str, str]) -> None:
    out = tmp_path / "out.jsonl"
    assert batch(out, *ask) == 0
    circle, cross = read_rows(out)
    assert circle["described"] == "A red circle on a white background."
    assert circle["colour"] == "Red."
    assert circle["colour_probability"] > 0.9
    for row in (circle, cross):
        assert type(row["count"]) is int
        assert 0 <= row["count"] <= 9
        assert type(row["drawn"]) is bool
        jsonschema.validate(row["shape"], {"properties": {"big": {"type": "boolean"}, "sides": {"type": "integer"}}})
        assert json.loads(row["answers"]["shape"]["text"]) == row["answers"]["shape"]["value"] == row["shape"]
    for line in out.read_bytes().splitlines():
        assert Row.from_json(line).to_line() == line + b"\n"


def test_tables_have_typed_columns(tmp_path: Path, ask: tuple[str, str]) -> None:
    out = tmp_path / "out.parquet"
    assert batch(out, *ask) == 0
    table = pq.read_table(out)
    kinds = {field.name: str(field.type) for field in table.schema}
    asked = ("described", "colour", "colour_probability", "count", "drawn", "shape")
    assert {name: kinds[name] for name in asked} == {
        "described": "string", "colour": "string", "colour_probability": "double", "count": "int64", "drawn": "bool",
        "shape": "string",
    }  # fmt: skip
    assert all(set(json.loads(text)) == {"big", "sides"} for text in table["shape"].to_pylist())


def test_the_properties_of_a_schema_are_columns(tmp_path: Path) -> None:
    schema = ("--schema", "sides int, text, big bool")
    assert batch(tmp_path / "out.parquet", *schema) == 0
    table = pq.read_table(tmp_path / "out.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert (kinds["sides"], kinds["value.text"], kinds["big"]) == ("int64", "string", "bool")
    values = [json.loads(text) for text in table["text"].to_pylist()]
    assert [value["sides"] for value in values] == table["sides"].to_pylist()
    assert [value["text"] for value in values] == table["value.text"].to_pylist()
    assert batch(tmp_path / "out.csv", *schema) == 0
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sides"]) for row in rows] == [value["sides"] for value in values]
    assert {row["big"] for row in rows} <= {"true", "false"}


def test_half_a_json_is_an_error_row(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert batch(out, "--schema", "sides int, big bool", "--max-new-tokens", "3") == 1
    for row in read_rows(out):
        assert (row["status"], row["error_type"], row["text"]) == ("error", "InvalidAnswer", None)
        assert row["error"] == "the answer was cut before its JSON was complete"
    assert batch(out, "--schema", "sides int, big bool", "--max-new-tokens", "3", "--retry-errors") == 1


def test_a_changed_form_is_a_changed_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    assert batch(out, "--choices", "Red,Green") == 0
    before = out.read_bytes()
    capsys.readouterr()
    assert batch(out, "--choices", "Red,Blue") == 1
    assert "made with different settings" in capsys.readouterr().err
    assert batch(out, "--choices", "Red,Green") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_rows_without_a_form_are_what_they_were(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert batch(out) == 0
    for row in read_rows(out):
        assert not {"value", "probability", "probabilities"} & row.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nchoices = ['x', 'y']", "a is not a question"),
        ("[a]\nprompt = 'x'\nchoises = []", "there is no 'choises' in a question"),
        ("[a]\nprompt = 'x'\nchoices = 'x,y'", "choices is not a list of texts"),
        ("[a]\nprompt = 'x'\nchoices = ['x', 'x']", "the choice 'x' is given twice"),
        ("[a]\nprompt = 'x'\nchoices = ['x', 'y']\ntype = 'integer'", "choices and type contradict"),
        ("[a]\nprompt = 'x'\ntype = 'float'", "type is 'float'; it must be one of string, integer"),
        ("[a]\nprompt = 'x'\nschema = {not = {}}", "the schema is not supported: not"),
        ("a_probability = 'y'\n[a]\nprompt = 'x'\nchoices = ['x', 'y']", "a question cannot be named 'a_probability'"),
        ("[a]\nprompt = 'x'\nschema = 3", "the schema is not a JSON object"),
        ("[a]\nprompt = 'x'\nschema = {const = 2020-01-01}", "the schema is not JSON: .*date"),
    ],
)
def test_wrong_questions_are_refused_with_file_and_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "q.toml"
    path.write_text(text)
    with pytest.raises(DsvlError, match=rf"q\.toml: (a: )?{message}"):
        read_questions(path)


@pytest.mark.parametrize("given", ["n int", '{"type": "object", "properties": {"n": {"type": "integer"}}}', None])
def test_the_schema_of_a_question_is_what_the_option_takes(tmp_path: Path, given: str | None) -> None:
    (tmp_path / "n.json").write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    path = tmp_path / "q.toml"
    path.write_text(f"[a]\nprompt = 'How many?'\nschema = '{given or tmp_path / 'n.json'}'\n")
    constraint = read_questions(path).constraints["a"]
    assert isinstance(constraint, JsonSchema)
    assert constraint.value["properties"] == {"n": {"type": "integer"}}


def test_forms_of_all_and_of_each_question_exclude_each_other(
    tmp_path: Path, ask: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch(tmp_path / "out.jsonl", *ask, "--yes-no") == 2
    assert "cannot be used with --ask" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_request_may_ask_for_log_probabilities(tmp_path: Path) -> None:
    content = [
        {"type": "image_url", "image_url": {"url": PICTURES[0]}},
        {"type": "text", "text": "Describe this image."},
    ]
    bodies: dict[str, dict[str, Any]] = {
        "plain": {},
        "with": {"logprobs": True, "top_logprobs": 2},
        "cut": {"logprobs": True, "stop": ["ircle"]},
        "json": {"logprobs": True, "response_format": {"type": "json_object"}},
    }
    requests, out = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    requests.write_text(
        "".join(
            json.dumps({"custom_id": name, "body": {"messages": [{"role": "user", "content": content}], **body}}) + "\n"
            for name, body in bodies.items()
        )
    )
    common = ["--allow-outside-paths", "--model", "tiny", "--dtype", "float32"]
    assert main(["batch", str(requests), "-o", str(out), "--format", "openai", *common]) == 0
    results = {line["custom_id"]: line for line in map(json.loads, out.read_text().splitlines())}
    choices = {name: result["response"]["body"]["choices"][0] for name, result in results.items()}
    assert "logprobs" not in choices["plain"]
    assert choices["cut"]["message"]["content"] == "A red c"
    for name in ("with", "cut", "json"):
        tokens = choices[name]["logprobs"]["content"]
        assert "".join(token["token"] for token in tokens) == choices[name]["message"]["content"]
        for token in tokens:
            assert list(token) == ["token", "logprob", "bytes", "top_logprobs"]
            assert bytes(token["bytes"]).decode() == token["token"]
            assert len(token["top_logprobs"]) == (2 if name == "with" else 0)
    best = choices["with"]["logprobs"]["content"][0]["top_logprobs"][0]
    assert best == {key: choices["with"]["logprobs"]["content"][0][key] for key in ("token", "logprob", "bytes")}
    rows = tmp_path / "rows.jsonl"
    assert main(["batch", str(requests), "-o", str(rows), *common]) == 0
    found = {row["id"]: row for row in map(json.loads, rows.read_text().splitlines())}
    assert found["with"]["logprobs"] == choices["with"]["logprobs"]["content"]
    assert "logprobs" not in found["plain"]

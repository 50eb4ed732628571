"""`dsvl describe` with --choices, --yes-no and --schema: what comes out, and what is refused before a model loads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dsvl_cli.cli import main

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CIRCLE, CROSS = str(EXAMPLES / "red-circle.png"), str(EXAMPLES / "white-cross.png")
KIND = json.dumps(
    {"type": "object", "properties": {"circle": {"type": "boolean"}}, "required": ["circle"],
     "additionalProperties": False}
)  # fmt: skip


def describe(*arguments: str) -> int:
    return main(["describe", *arguments, "--model", "tiny", "--dtype", "float32"])


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if anything is loaded."""

    def load_model(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("dsvl_cli.engine.model.load_model", load_model)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_the_answer_is_one_of_a_list_or_of_the_lines_of_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, ends: str
) -> None:
    question = ("-p", "What colour is the circle?")
    assert describe(CIRCLE, *question, "--choices", "Green.,Red.,Blue.") == 0
    assert capsys.readouterr().out == "Red.\n"
    path = tmp_path / "colours.txt"
    path.write_bytes(f"Green.{ends}Red.{ends}{ends}".encode())
    assert describe(CIRCLE, *question, "--choices", str(path)) == 0
    assert capsys.readouterr().out == "Red.\n"


def test_yes_or_no_about_several_pictures_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, CROSS, "-p", "Is there a circle?", "--yes-no", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["Yes", "No"]
    for row in rows:
        assert set(row["probabilities"]) == {"Yes", "No"}
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["probabilities"][row["text"]] > 0.5


def test_json_alone_or_as_value_beside_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, "--schema", KIND) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert isinstance(json.loads(out)["circle"], bool)
    assert describe(CIRCLE, "--schema", KIND, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["value"] == json.loads(row["text"]) == json.loads(out)


def test_a_schema_may_be_a_file_or_the_short_form(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    path.write_text(KIND)
    assert describe(CIRCLE, "--schema", str(path)) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"circle"}
    assert describe(CIRCLE, "--schema", "count int, is_red bool") == 0
    value = json.loads(capsys.readouterr().out)
    assert [type(each) for each in value.values()] == [int, bool]
    assert list(value) == ["count", "is_red"]


def test_half_a_json_is_an_error_and_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, "--schema", "count int, is_red bool", "--max-new-tokens", "4") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the answer was cut before its JSON was complete" in captured.err
    assert describe(CIRCLE, CROSS, "--schema", "count int, is_red bool", "--max-new-tokens", "4", "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == [CIRCLE, CROSS]
    assert all("cut" in row["error"] and "value" not in row for row in rows)


def test_what_the_schema_says_about_its_fields_reaches_the_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsvl_cli.engine.text.prompt import PromptFormat

    read: list[str] = []
    prepare = PromptFormat.prepare

    def watch(self: PromptFormat, conversation):  # type: ignore[no-untyped-def]
        read.append(conversation.messages[-1].text)
        return prepare(self, conversation)

    monkeypatch.setattr(PromptFormat, "prepare", watch)
    assert describe(CIRCLE, "-p", "Look.", "--schema", "count int: how many shapes") == 0
    assert describe(CIRCLE, "-p", "Look.", "--schema", "count int") == 0
    assert read == ["Look.\nAnswer in JSON with these fields.\ncount: how many shapes", "Look."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--choices", ""], "one of the choices is empty"),
        (["--choices", "red"], "there must be at least two choices"),
        (["--choices", "red,,blue"], "one of the choices is empty"),
        (["--choices", "red,blue,red"], "the choice 'red' is given twice"),
        (["--choices", "red,blue", "--yes-no"], "--choices and --yes-no contradict each other"),
        (["--schema", "a", "--yes-no"], "--yes-no and --schema contradict each other"),
        (["--schema", ""], "the schema is empty"),
        (["--schema", "a b c"], "'a b c' is not a field of a schema"),
        (["--schema", '{"properties": {"a": {"not": {}}}}'], "the schema is not supported: properties/a/not"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_forms_are_refused_in_one_line_before_anything_loads(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, no_loading: None
) -> None:
    assert describe(CIRCLE, *arguments) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"error: {re.escape(message)}.*\n(hint: .*\n)?", error)


def test_a_choice_that_the_model_cannot_give_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(CIRCLE, "--choices", "red,<｜end▁of▁sentence｜>") == 1
    assert "has a meaning of its own to the model" in capsys.readouterr().err
    assert describe(CIRCLE, "--choices", f"red,{'very ' * 5000}red") == 1
    assert re.search(r"a choice has [\d,]+ tokens, but [\d,]+ are left of the context", capsys.readouterr().err)

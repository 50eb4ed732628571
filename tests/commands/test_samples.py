"""`--samples`: several answers a picture, with every other option that shapes answers and rows."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dsvl_cli.batch.row import Row
from dsvl_cli.cli import main
from dsvl_cli.engine.conversation import Chunk

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PICTURES = [str(EXAMPLES / name) for name in ("red-circle.png", "white-cross.png")]
WARM = ("--temperature", "3", "--seed", "1")
UNSURE = ("-p", "What is in the middle?")  # a question with which tiny is not certain
QUESTIONS = """
described = "Describe this image."

[colour]
prompt = "What colour is the circle?"
choices = ["Red.", "Green.", "Blue."]

[count]
prompt = "How many shapes are there?"
type = "integer"

[shape]
prompt = "What is it?"
schema = "big bool, sides int"
"""


def describe(*arguments: str) -> int:
    return main(["describe", *arguments, "--model", "tiny", "--dtype", "float32"])


def batch(out: Path | str, *arguments: str) -> int:
    return main(["batch", *PICTURES, "-o", str(out), *arguments, "--model", "tiny", "--dtype", "float32"])


def read_rows(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(rows, key=lambda row: row.get("path", row.get("id")))


@pytest.fixture
def ask(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "q.toml"
    path.write_text(QUESTIONS)
    return ("--ask", str(path))


def test_a_pipe_gets_all_samples_with_empty_lines_between_and_stderr_the_disagreement(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert describe(PICTURES[0], *UNSURE, "--samples", "4", *WARM) == 0
    captured = capsys.readouterr()
    samples = captured.out.removesuffix("\n").split("\n\n")
    assert len(samples) == 4
    assert len(set(samples)) > 1
    assert re.search(r"disagreement 0\.\d\d between 4 samples", captured.err)
    assert describe(PICTURES[0], *UNSURE, "--samples", "4", *WARM, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["samples"] == samples
    assert row["text"] in samples
    assert 0 < row["disagreement"] <= 1
    assert row["stats"]["generated_tokens"] == sum(each["tokens"] for each in row["sample_details"])


def test_the_second_sample_is_the_answer_of_the_next_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(PICTURES[0], *UNSURE, "--samples", "3", *WARM, "--json") == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    assert describe(PICTURES[0], *UNSURE, "--temperature", "3", "--seed", "2") == 0
    assert capsys.readouterr().out == f"{samples[1]}\n"


@pytest.mark.parametrize(
    ("more", "temperature"), [([], 0.7), (["--temperature", "0.2"], 0.2), (["--samples", "1"], 0.0)]
)
def test_the_temperature_is_that_of_samples_unless_one_is_set(
    monkeypatch: pytest.MonkeyPatch, more: list[str], temperature: float
) -> None:
    found: list[Any] = []
    monkeypatch.setattr("dsvl_cli.app.describe.answer_all", lambda *args, **_: found.append(args[3]))
    assert describe(PICTURES[0], "--samples", "5", *more) == 0
    assert found[0].temperature == temperature
    assert (found[0].seed is None) == (temperature == 0)


@pytest.mark.parametrize("command", ["describe", "batch"])
def test_a_temperature_of_0_is_one_usage_error_wherever_it_is_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("DSVL_CONFIG_DIR", str(tmp_path))

    def refusal(*arguments: str) -> str:
        more = ("-o", str(tmp_path / "o.csv")) if command == "batch" else ()
        assert main([command, "a.png", *more, *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 2
        return error

    assert "at a temperature of 0 all 3 samples are equal\nhint: set a temp" in refusal("--samples", "3", "--temp", "0")
    (tmp_path / "config.toml").write_text("temperature = 0\nsamples = 4\n")
    assert "all 4 samples are equal" in (error := refusal())
    assert "config.toml:1: temperature" in error
    monkeypatch.setenv("DSVL_TEMPERATURE", "0.0")
    monkeypatch.setenv("DSVL_SAMPLES", "2")
    assert "all 2 samples are equal (DSVL_TEMPERATURE)" in refusal()


def test_an_interrupt_shows_the_samples_that_were_complete(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsvl_cli.engine.model import VisionLanguageModel

    stream_samples = VisionLanguageModel.stream_samples

    def interrupted(self: VisionLanguageModel, *arguments: Any) -> Iterator[tuple[int, Chunk]]:
        for index, chunk in stream_samples(self, *arguments):
            yield index, chunk
            if chunk.finish_reason is not None:
                raise KeyboardInterrupt

    monkeypatch.setattr(VisionLanguageModel, "stream_samples", interrupted)
    assert describe(PICTURES[0], "--samples", "3") == 130
    captured = capsys.readouterr()
    assert captured.out == "A red circle on a white background.\n"
    assert "interrupted: 1 of 3 samples were complete" in captured.err
    assert describe(PICTURES[0], "--samples", "3", "--json") == 130
    assert capsys.readouterr().out == ""


def test_values_come_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(PICTURES[0], "--samples", "4", *WARM, "--schema", "big bool, sides int") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [set(json.loads(line)) for line in lines] == [{"big", "sides"}] * 4
    question = ("-p", "What colour is the circle?", "--choices", "Red.,Green.,Blue.")
    assert describe(PICTURES[0], "--samples", "4", *question, "--temperature", "5", "--seed", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert set(lines) <= {"Red.", "Green.", "Blue."}


def test_the_likeliest_choice_is_the_answer_whatever_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    question = (PICTURES[0], "-p", "What colour is the circle?", "--choices", "Green.,Red.", "--json")
    assert describe(*question) == 0
    alone = json.loads(capsys.readouterr().out)
    assert describe(*question, "--samples", "40", "--temperature", "100", "--seed", "1") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["text"], row["probabilities"]) == (alone["text"], alone["probabilities"])
    assert set(row["samples"]) == {"Red.", "Green."}
    assert "sample_details" not in row
    assert row["stats"]["generated_tokens"] == alone["stats"]["generated_tokens"]


def test_only_if_no_sample_is_valid_there_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # At this temperature both are as likely, and the second one does not fit.
    schema = ("--schema", json.dumps({"enum": ["a", "b" * 200]}), "--temperature", "100", "--seed", "1")
    arguments = (*schema, "--samples", "8", "--max-new-tokens", "8")
    assert describe(PICTURES[0], *arguments) == 0
    captured = capsys.readouterr()
    valid = captured.out.splitlines()
    assert set(valid) == {'"a"'}
    assert f"warning: {8 - len(valid)} of 8 samples are not valid: the answer was cut" in captured.err
    out = tmp_path / "out.jsonl"
    assert batch(out, *arguments) == 0
    row = read_rows(out)[0]
    assert (row["status"], row["value"], row["finish_reason"]) == ("answered", "a", "stop")
    assert [result is None for result in row["samples"]] == ["error" in each for each in row["sample_details"]]
    assert row["samples"].count("a") == len(valid) < 8
    assert row["disagreement"] > 0
    assert Row.from_fields(row).to_fields() == row
    assert batch(tmp_path / "none.jsonl", *schema, "--samples", "3", "--max-new-tokens", "1") == 1
    for row in read_rows(tmp_path / "none.jsonl"):
        assert (row["status"], row["error_type"], row["text"]) == ("error", "InvalidAnswer", None)
        assert row["error"].startswith("none of 3 samples is valid: the answer was cut")


def read_table(out: Path) -> list[dict[str, Any]]:
    """Rows of any output, with the JSON in cells of CSV parsed."""
    if out.suffix == ".jsonl":
        return read_rows(out)
    if out.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
        return rows
    with open(out, newline="") as file:
        parsed = [dict(row) for row in csv.DictReader(file)]
    for row in parsed:
        for name in row:
            if name.endswith("samples"):
                row[name] = json.loads(row[name])
            elif name.endswith("disagreement"):
                row[name] = float(row[name])
    return parsed


FORMS: list[tuple[str, Sequence[str], type | None]] = [
    ("text", (), str),
    ("choices", ("-p", "What colour is the circle?", "--choices", "Red.,Green.", "--min-probability", "0.9"), str),
    ("yes-no", ("-p", "Is there a circle?", "--yes-no"), str),
    ("integer", ("--schema", '{"type": "integer", "minimum": 0, "maximum": 9}'), int),
    ("object", ("--schema", "big bool, sides int"), None),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(("form", "kind"), [case[1:] for case in FORMS], ids=[case[0] for case in FORMS])
def test_every_form_in_every_table(tmp_path: Path, suffix: str, form: Sequence[str], kind: type | None) -> None:
    out = tmp_path / f"out{suffix}"
    assert batch(out, *form, "--samples", "3", *WARM) == 0
    for row in read_table(out):
        assert len(row["samples"]) == 3
        assert 0 <= row["disagreement"] <= 1
        if kind is None:
            samples = [json.loads(each) if suffix == ".parquet" else each for each in row["samples"]]
            assert all(set(each) == {"big", "sides"} for each in samples)
        else:
            assert all(type(each) is kind for each in row["samples"])
            samples = row["samples"]
        if "--choices" not in form and "--yes-no" not in form:
            assert (row["text"] if kind is str else json.loads(row["text"])) in samples
        if len({str(each) for each in samples}) == 1:
            assert row["disagreement"] == 0
    if suffix == ".parquet":
        schema = pq.read_schema(out)
        assert str(schema.field("disagreement").type) == "double"
        assert str(schema.field("samples").type).endswith("int64>" if kind is int else "string>")


def test_every_question_has_its_samples_beside_its_answer(tmp_path: Path, ask: tuple[str, str]) -> None:
    out = tmp_path / "out.jsonl"
    assert batch(out, *ask, "--samples", "3", *WARM) == 0
    for line in out.read_bytes().splitlines():
        row = json.loads(line)
        for name in ("described", "colour", "count", "shape"):
            assert len(row[f"{name}_samples"]) == 3
            assert row[f"{name}_disagreement"] == row["answers"][name]["disagreement"]
        for name in ("described", "count", "shape"):
            assert row[name] in row[f"{name}_samples"]
        parsed = Row.from_json(line)
        assert parsed.to_line() == line + b"\n"
        assert parsed.disagreement == max(row["answers"][name]["disagreement"] for name in row["prompts"])
    for suffix in (".csv", ".parquet"):
        assert batch(tmp_path / f"out{suffix}", *ask, "--samples", "3", *WARM) == 0
        for table, row in zip(read_table(tmp_path / f"out{suffix}"), read_rows(out), strict=True):
            assert table["described_samples"] == row["described_samples"]
            assert table["count_samples"] == row["count_samples"]
            assert table["colour_disagreement"] == row["colour_disagreement"]


def test_a_question_with_the_name_of_such_a_column_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "q.toml"
    path.write_text('a = "What?"\na_samples = "Who?"\n')
    assert batch(tmp_path / "out.jsonl", "--ask", str(path), "--samples", "2") == 1
    assert "a question cannot be named 'a_samples'" in capsys.readouterr().err
    assert batch(tmp_path / "out.jsonl", "--ask", str(path)) == 0


def test_the_rows_do_not_depend_on_the_batch_and_a_seed_repeats_them(tmp_path: Path) -> None:
    def rows(name: str, *more: str) -> list[tuple[Any, ...]]:
        assert batch(tmp_path / name, *UNSURE, "--samples", "3", "--temperature", "3", *more) == 0
        return [(row["samples"], row["text"], row["disagreement"]) for row in read_rows(tmp_path / name)]

    first = rows("a.jsonl", "--seed", "7")
    assert rows("b.jsonl", "--seed", "7", "--batch-size", "1") == rows("c.jsonl", "--seed", "7", "--batch-size", "2")
    assert rows("b.jsonl", "--seed", "7", "--batch-size", "1") == first
    assert rows("d.jsonl", "--seed", "107") != first


def test_a_changed_number_of_samples_is_a_changed_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    assert batch(out, "--samples", "2") == 0
    before = out.read_bytes()
    capsys.readouterr()
    assert batch(out, "--samples", "3") == 1
    assert "samples 3 (was 2)" in capsys.readouterr().err
    assert batch(out, "--samples", "2") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_rows_of_one_answer_are_what_they_were(tmp_path: Path) -> None:
    assert batch(tmp_path / "out.jsonl", "--samples", "1") == 0
    for row in read_rows(tmp_path / "out.jsonl"):
        assert not {"samples", "disagreement", "sample_details"} & row.keys()


def write_requests(path: Path, **bodies: dict[str, Any]) -> None:
    content = [
        {"type": "image_url", "image_url": {"url": PICTURES[0]}},
        {"type": "text", "text": UNSURE[1]},
    ]
    lines = [
        {"custom_id": name, "body": {"messages": [{"role": "user", "content": content}], **body}}
        for name, body in bodies.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def answer_requests(folder: Path, *more: str, **bodies: dict[str, Any]) -> dict[str, Any]:
    write_requests(folder / "in.jsonl", **bodies)
    arguments = ["-o", str(folder / "out.jsonl"), "--format", "openai", "--allow-outside-paths", "--overwrite", *more]
    main(["batch", str(folder / "in.jsonl"), *arguments, "--model", "tiny", "--dtype", "float32"])
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return {row["custom_id"]: row["error"] or row["response"]["body"] for row in rows}


def test_n_in_a_request_gives_several_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer", "maximum": 99}}}
    found = answer_requests(
        tmp_path,
        warm={"n": 3, "temperature": 3, "seed": 1}, cold={"n": 2}, one={"temperature": 3, "seed": 2},
        form={"n": 3, "temperature": 3, "seed": 1, "response_format": schema}, null={"n": None},
        cut={"n": 2, "temperature": 3, "seed": 1, "max_tokens": 2},
    )  # fmt: skip
    texts = {name: [choice["message"]["content"] for choice in body["choices"]] for name, body in found.items()}
    assert {name: len(each) for name, each in texts.items()} == {
        "warm": 3, "cold": 2, "one": 1, "form": 3, "null": 1, "cut": 2
    }  # fmt: skip
    for body in found.values():
        assert [choice["index"] for choice in body["choices"]] == list(range(len(body["choices"])))
    assert texts["warm"][1] == texts["one"][0]
    assert len(set(texts["warm"])) > 1
    assert texts["cold"] == [texts["null"][0]] * 2
    assert all(type(json.loads(text)) is int for text in texts["form"])
    assert {choice["finish_reason"] for choice in found["cut"]["choices"]} == {"length"}
    usage = {name: body["usage"] for name, body in found.items()}
    assert usage["warm"]["prompt_tokens"] == usage["one"]["prompt_tokens"]
    assert usage["warm"]["completion_tokens"] > usage["one"]["completion_tokens"]
    assert usage["cold"]["completion_tokens"] == 2 * usage["null"]["completion_tokens"]
    assert usage["cut"]["completion_tokens"] == 4
    assert capsys.readouterr().err.count("its 2 answers are equal at a temperature of 0") == 1


def test_samples_of_the_run_are_those_of_requests_without_a_number(tmp_path: Path) -> None:
    found = answer_requests(tmp_path, "--samples", "3", *WARM, own={"n": 2}, none={}, one={"n": 1})
    assert {name: len(body["choices"]) for name, body in found.items()} == {"own": 2, "none": 3, "one": 1}


def test_another_n_is_refused_by_name(tmp_path: Path) -> None:
    error = answer_requests(tmp_path, a={"n": 129})["a"]
    assert error["code"] == "invalid_request_error"
    assert "n is not a whole number between 1 and 128" in error["message"]


def test_each_of_several_choices_has_its_own_log_probabilities(tmp_path: Path) -> None:
    asked = {"n": 3, "temperature": 3, "seed": 1, "logprobs": True, "top_logprobs": 1}
    choices = answer_requests(tmp_path, a=asked)["a"]["choices"]
    assert len({choice["message"]["content"] for choice in choices}) > 1
    for choice in choices:
        tokens = choice["logprobs"]["content"]
        whole = b"".join(bytes(token["bytes"]) for token in tokens)  # at this temperature not all of it is UTF-8
        assert whole.decode(errors="replace") == choice["message"]["content"]
        assert all(token["logprob"] <= 0 for token in tokens)


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_a_table_that_has_no_place_for_the_answers_of_a_request_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    write_requests(tmp_path / "in.jsonl", a={"n": 2, "temperature": 3, "seed": 1})
    arguments = ["-o", str(tmp_path / output), "--allow-outside-paths", "--model", "tiny"]
    assert main(["batch", str(tmp_path / "in.jsonl"), *arguments]) == 0
    assert f"{output} has one answer of several; a .jsonl file has all" in capsys.readouterr().err


def test_text_files_say_that_they_have_one_answer_of_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch(tmp_path / "texts", "--samples", "2", *WARM) == 0
    assert "texts has one answer of several; a .jsonl file has all" in capsys.readouterr().err
    assert batch(tmp_path / "out.csv", "--samples", "2", *WARM) == 0
    assert "one answer of several" not in capsys.readouterr().err

"""One rule for each setting: every way to set it takes and refuses the same values, at the bounds and beyond."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.app.doctor import check_variable
from dsvl_cli.batch.sources.requests import scan_requests
from dsvl_cli.cli import main
from dsvl_cli.config import read_config
from dsvl_cli.engine.options import (
    OF_A_QUESTION,
    RULES,
    Bound,
    Choices,
    LoadOptions,
    Quantization,
    SamplingParams,
    count_cpus,
)
from dsvl_cli.engine.quantization.formats import FORMATS, WIDTHS
from dsvl_cli.errors import DsvlError, UsageError
from dsvl_cli.settings import ALL_SETTINGS
from dsvl_cli.terminal.chat.settings import ChatSettings, find_setting, set_value

LOADING = [field.name for field in fields(LoadOptions) if field.name in RULES]
SAMPLING = [field.name for field in fields(SamplingParams) if field.name not in OF_A_QUESTION]

# As they are typed: what is right and what is wrong, at the bounds and next to them.
VALUES: dict[str, tuple[list[str], list[str]]] = {
    "model": (["tiny", "org/name", "./folder"], [""]),
    "revision": (["main"], [""]),
    "device": (
        ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps", "xpu"],
        ["", "gpu", "CPU", "cpu ", "cuda:", "cuda:x", "cuda:-1", "cuda:٣", "mps:0", "cpu:0", "auto:0"],
    ),
    "dtype": (["auto", "bfloat16", "float16", "float32"], ["bf16", "float64", "Auto"]),
    "attn_implementation": (["auto", "eager", "sdpa", "flash_attention_2"], ["flash_attention_3", "org/name"]),
    "device_map": (["auto"], ["balanced", "cuda"]),
    "threads": (["1", str(count_cpus())], ["0", "-1", "1.5", "x", str(count_cpus() + 1), "99999"]),
    "quantization": (["4bit", "8bit", "bnb-nf4", "torchao-int8-dynamic", "int4"], ["3bit", "nf4", "4"]),
    "group_size": (["32", "64", "128", "256"], ["0", "31", "33", "100", "512", "-32"]),
    "max_new_tokens": (["1", "512", "100000"], ["0", "-1", "1.5", "x"]),
    "temperature": (["0", "1e-9", "0.7", "100"], ["-1e-9", "100.001", "nan", "inf", "-inf", "x"]),
    "top_k": (["0", "1", "100000"], ["-1", "1.5"]),
    "top_p": (["1e-9", "0.5", "1"], ["0", "-0.1", "1.001", "nan", "inf"]),
    "min_p": (["0", "0.5", "1"], ["-1e-9", "1.001", "nan"]),
    "repetition_penalty": (["1e-9", "1", "100"], ["0", "-1", "100.001", "nan", "inf"]),
    "seed": (["0", "1", "9223372036854775807"], ["-1", "9223372036854775808", "1.5", "x"]),
    "stop": (["END", " "], [""]),
    "samples": (["1", "2", "128"], ["0", "-1", "129", "1.5", "x"]),
    "overflow": (["error", "drop-oldest"], ["drop", "ERROR"]),
}
CASES = [(name, text, right) for name, texts in VALUES.items() for right in (True, False) for text in texts[not right]]


def value_of(name: str, text: str) -> Any:
    """The value that is meant, as Python and TOML have it; the text itself where it is of no such kind."""
    kind = RULES[name].kind
    if kind is list:
        return [text]
    try:
        return kind(text)
    except ValueError:
        return float(text) if text == "1.5" else text


def test_the_table_has_every_rule_and_every_rule_is_a_setting() -> None:
    assert VALUES.keys() == RULES.keys() == {name for name, setting in ALL_SETTINGS.items() if setting.rule}
    assert set(SAMPLING) < RULES.keys()


# A value of another type is the type checker's to refuse.
@pytest.mark.parametrize(
    ("name", "text", "right"),
    [case for case in CASES if type(value_of(*case[:2])) is RULES[case[0]].kind and case[0] != "samples"],
)
def test_the_options_of_the_engine(name: str, text: str, right: bool) -> None:
    value = value_of(name, text)
    kind: Any = LoadOptions if name in LOADING else SamplingParams if name in SAMPLING else ChatSettings
    arguments = {name: tuple(value) if type(value) is list else value}
    if right:
        assert getattr(kind(**arguments), name) == arguments[name]
    else:
        with pytest.raises(UsageError, match=f"^{name} is .*; it must be "):
            kind(**arguments)


@pytest.mark.parametrize(("name", "text", "right"), CASES)
def test_files(tmp_path: Path, name: str, text: str, right: bool) -> None:
    value = value_of(name, text)
    written = value if value != value or value in (float("inf"), float("-inf")) else json.dumps(value)
    (tmp_path / "config.toml").write_text(f"[profiles.p]\n{name} = {written}\n", encoding="utf-8")

    def read() -> Any:
        return read_config({"DSVL_CONFIG_DIR": str(tmp_path)}, "p", tmp_path).values[name].value

    if right:
        assert read() == value
    else:
        with pytest.raises(DsvlError, match=f"{name} is .*; it must be "):
            read()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `dsvl chat` would begin with, or the number of samples of `dsvl describe`."""
    found: list[dict[str, Any]] = []

    def run(console: object, images: object, load: LoadOptions, sampling: SamplingParams, **more: Any) -> int:
        options = {field.name: getattr(each, field.name) for each in (load, sampling) for field in fields(each)}
        found.append({**options, "overflow": more["overflow"]})
        return 0

    monkeypatch.setattr("dsvl_cli.app.chat.run_chat", run)
    monkeypatch.setattr(
        "dsvl_cli.app.describe.answer_all", lambda *_, samples, **__: found.append({"samples": samples})
    )
    return found


def command_with(name: str) -> list[str]:
    """A command that has the setting as an option."""
    return ["describe", "a.png"] if name == "samples" else ["chat"]


def check_status(status: int, taken: list[dict[str, Any]], name: str, text: str, right: bool) -> None:
    assert status == (0 if right else 2)
    assert len(taken) == right
    if right:
        value = value_of(name, text)
        assert taken[0][name] == (tuple(value) if type(value) is list else value)


@pytest.mark.parametrize(("name", "text", "right"), CASES)
def test_options_of_the_command_line(
    taken: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], name: str, text: str, right: bool
) -> None:
    flag = f"--{name.replace('_', '-')}"
    check_status(main([*command_with(name), f"{flag}={text}"]), taken, name, text, right)
    assert right or name in capsys.readouterr().err.replace("-", "_")


@pytest.mark.parametrize(("name", "text", "right"), [case for case in CASES if case[0] != "stop" and case[1]])
def test_variables(
    taken: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, name: str, text: str, right: bool
) -> None:
    monkeypatch.setenv(f"DSVL_{name.upper()}", text)
    check_status(main(command_with(name)), taken, name, text, right)


@pytest.mark.parametrize(("name", "text", "right"), [case for case in CASES if case[0] != "stop" and case[1]])
def test_the_doctor_judges_a_variable_as_the_commands_do(name: str, text: str, right: bool) -> None:
    problems = check_variable(f"DSVL_{name.upper()}", text, ALL_SETTINGS[name])
    assert (problems == []) == right


@pytest.mark.parametrize(("name", "text", "right"), [case for case in CASES if case[0] not in (*LOADING, "samples")])
def test_slash_set(name: str, text: str, right: bool) -> None:
    typed = f"'{text}'" if name == "stop" else text
    began = ChatSettings()

    def change() -> Any:
        changed = set_value(began, find_setting(name), typed, began)
        return changed.overflow if name == "overflow" else getattr(changed.sampling, name)

    if right:
        value = value_of(name, text)
        assert change() == (tuple(value) if type(value) is list else value)
    else:
        with pytest.raises(UsageError, match=f"^{name} is .*; it must be "):
            change()


@pytest.mark.parametrize(("name", "text", "right"), [case for case in CASES if case[0] in SAMPLING])
def test_requests_of_a_batch(tmp_path: Path, name: str, text: str, right: bool) -> None:
    field = "max_tokens" if name == "max_new_tokens" else name
    picture = {"type": "image_url", "image_url": {"url": "a.png"}}
    body = {"messages": [{"role": "user", "content": [picture]}], field: value_of(name, text)}
    (tmp_path / "in.jsonl").write_text(json.dumps({"custom_id": "a", "body": body}))
    (item,) = scan_requests(str(tmp_path / "in.jsonl"))
    assert (item.sampling != {}) == right


@pytest.mark.skipif(sys.platform != "linux", reason="processes are bound to CPUs in another way")
def test_only_cpus_that_the_process_may_use_count() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from dsvl_cli.engine.options import LoadOptions, count_cpus\n"
        "assert count_cpus() == 1\n"
        "LoadOptions(threads=2)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "threads is 2; it must be a whole number between 1 and the number of CPUs, 1" in run.stderr


def test_the_help_is_the_same_on_every_machine() -> None:
    assert RULES["threads"].limits == "between 1 and the number of CPUs"


def test_formats_and_widths_are_the_choices_of_quantization() -> None:
    assert set(typing.get_args(Quantization)) == {*FORMATS, *WIDTHS}


@pytest.mark.parametrize("name", RULES)
def test_the_values_that_a_rule_offers_are_right(name: str) -> None:
    rule = RULES[name]
    assert all(rule.holds(value) for value in rule.offered)
    assert type(rule.offered) is tuple


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Bound(int, 1), "a whole number of at least 1"),
        (Bound(float, 0, 100), "a number between 0 and 100"),
        (Bound(float, 0, 1, is_open=True), "a number above 0 and at most 1"),
        (Bound(float, 0, is_open=True), "a number above 0"),
        (Bound(int, 1, 2, high_name="the number of CPUs"), "a whole number between 1 and the number of CPUs, 2"),
        (Bound(int, 0, 2**63 - 1), "a whole number between 0 and 2^63 - 1"),
        (Choices(("a", "b"), numbered=("b",)), "one of a, b, b:N"),
        (Choices((32, 64)), "one of 32, 64"),
    ],
)
def test_a_rule_is_told_in_words(rule: Bound | Choices, words: str) -> None:
    assert str(rule) == words

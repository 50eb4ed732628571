"""Wrong command lines: every option of every command, each way to set it; in our own words, naming what was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.cli import app, main
from dsvl_cli.commands.usage import read_written
from dsvl_cli.engine.checkpoint.find import find_checkpoint
from dsvl_cli.engine.options import RULES, Bound, LoadOptions, NotEmpty
from dsvl_cli.engine.progress import Silence
from dsvl_cli.errors import ExitStatus
from dsvl_cli.settings import ALL_SETTINGS, SETTINGS

PARSER_WORDS = re.compile(r"Invalid value|No such|Missing |Got unexpected|valid integer|unable to|Error|\bNone\b|Try ")


def walk(command: Any, *words: str, parent: Any = None) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield every command that does something, with its words and its context."""
    context = command.make_context(command.name or "dsvl", [], parent=parent, resilient_parsing=True)
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from walk(child, *words, name, parent=context)
    else:
        yield words, command, context


WALKED = list(walk(typer.main.get_command(app)))
# Each once: what several commands share is one declaration.
OPTIONS = list(
    {
        (tuple(option.opts), option.help): (words, command, option)
        for words, command, context in WALKED
        for option in command.get_params(context)
        if option.param_type_name == "option" and option.name != "help"
    }.values()
)
IDS = [f"{' '.join(words)} {option.opts[0]}" for words, _, option in OPTIONS]
VALUED = [case for case in OPTIONS if not case[2].is_flag]
VALUED_IDS = [name for case, name in zip(OPTIONS, IDS, strict=True) if case in VALUED]
Failing = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Failing:
    """Runs a command line that is wrong; returns what is on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSVL_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("DSVL_DATA_DIR", str(tmp_path))

    def run(*arguments: str) -> str:
        assert main(arguments) == ExitStatus.USAGE
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") <= 2
        assert not PARSER_WORDS.search(captured.err), captured.err
        return captured.err

    return run


def needed(command: Any) -> list[str]:
    """As many arguments as a command needs."""
    return ["x" for found in command.params if found.param_type_name == "argument" and found.required]


def wrong_value(option: Any) -> str | None:
    """A value that an option cannot have, or None if it may have any."""
    rule = RULES.get(option.name)
    if option.is_flag:
        return "perhaps"
    if isinstance(rule, NotEmpty):
        return ""
    if isinstance(rule, Bound):
        return "-5"
    is_choice = rule is not None or (option.metavar is None and option.shell_complete(None, "") != [])
    return "wrong" if is_choice or option.min is not None else None


@pytest.mark.parametrize(("words", "command", "option"), VALUED, ids=VALUED_IDS)
def test_a_wrong_value_is_named_with_the_option_as_it_was_written(
    fails: Failing, words: tuple[str, ...], command: Any, option: Any
) -> None:
    value = wrong_value(option)
    if value is None:
        return
    for name in option.opts:
        forms = [(f"{name}={value}",), (name, value)] if name.startswith("--") else [(name, value)]
        for form in forms:
            told = fails(*words, *needed(command), *form)
            expected = value or "''"
            assert told.startswith(f"error: {name} is {expected}; it must be "), told


@pytest.mark.parametrize(("words", "command", "option"), OPTIONS, ids=IDS)
def test_a_wrong_variable_is_named_and_not_an_option_that_nobody_used(
    fails: Failing, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], command: Any, option: Any
) -> None:
    value = wrong_value(option)
    if not option.envvar or not value:
        return
    monkeypatch.setenv(option.envvar, value)
    told = fails(*words, *needed(command))
    assert told.startswith(f"error: {option.envvar} is {value}; it must be ")
    assert "--" not in told


@pytest.mark.parametrize("form", ["{}\n", "[profiles.p]\n{}\n", "# a comment\n[{table}]\n{}\n"])
@pytest.mark.parametrize("name", ALL_SETTINGS)
def test_a_wrong_value_in_a_file_is_named_with_its_line(fails: Failing, tmp_path: Path, name: str, form: str) -> None:
    rule = ALL_SETTINGS[name].rule
    value = '"perhaps"' if rule is None and ALL_SETTINGS[name].kind is bool else "-5"
    path = tmp_path / "config.toml"
    table = next(table for table in SETTINGS if name in SETTINGS[table])
    path.write_text(form.format(f"{name} = {value}", table=table))
    line = form.count("\n")
    told = fails("chat")
    assert told.startswith(f"error: {path}:{line}: {name} is {value}; it must be ")


def test_a_value_from_a_file_that_the_engine_refuses_is_named_with_its_line(
    fails: Failing, finding: None, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("\nmodel = 'nope'\n")
    assert fails("describe", "x.png").startswith(f"error: there is no model 'nope' ({path}:2: model)\n")
    path.write_text("[profiles.p]\nrevision = 'main'\n")
    told = fails("describe", "x.png", "-m", "tiny", "--profile", "p")
    assert told.startswith(f"error: {path}:2 (profile p): revision needs a model from the hub")


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_profile_that_is_not_there_is_named_as_it_was_written(
    fails: Failing, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "variable":
        monkeypatch.setenv("DSVL_PROFILE", "fast")
    told = fails("describe", "x.png", *(["--profile", "fast"] if way == "option" else []))
    assert told.startswith(f"error: there is no profile 'fast'{' (DSVL_PROFILE)' if way == 'variable' else ''}\n")


@pytest.mark.parametrize(("words", "command", "option"), VALUED, ids=VALUED_IDS)
def test_an_option_that_lacks_its_value_says_what_belongs_there(
    fails: Failing, words: tuple[str, ...], command: Any, option: Any
) -> None:
    for name in option.opts:
        told = fails(*words, *needed(command), name)
        assert told.startswith(f"error: {name} needs a value\nhint: {name} ")
        followed = fails(*words, *needed(command), name, "--help")
        assert followed.startswith(f"error: {name} needs a value, but is followed by --help\n")
        assert "=--help" in followed


@pytest.mark.parametrize(("words", "command", "option"), OPTIONS, ids=IDS)
def test_a_near_miss_of_an_option_names_it(fails: Failing, words: tuple[str, ...], command: Any, option: Any) -> None:
    name = next(name for name in option.opts if name.startswith("--"))
    missed = f"{name[:-1]}{name[-1] * 2}"
    told = fails(*words, *needed(command), missed)
    assert told.startswith(f"error: there is no option {missed}\nhint: did you mean --")
    told = fails(*words, *needed(command), name[1:], "x")
    assert told == f"error: there is no option {name[1:]}\nhint: did you mean {name}?\n"


@pytest.mark.parametrize(("words", "command", "_"), WALKED, ids=[" ".join(words) for words, _, _ in WALKED])
def test_missing_and_needless_arguments_are_named(fails: Failing, words: tuple[str, ...], command: Any, _: Any) -> None:
    path = " ".join(("dsvl", *words))
    arguments = [found for found in command.params if found.param_type_name == "argument"]
    if needed(command):
        told = fails(*words, *needed(command)[1:])
        assert told.startswith(f"error: {path} needs ")
        assert f"hint: {path} " in told
    if not any(found.nargs == -1 for found in arguments):
        told = fails(*words, *["x"] * len(arguments), "one", "two")
        assert told.startswith(f"error: {path} takes ")
        assert "one two is too much" in told
    assert f"{path} --help" in fails(*words, *needed(command), "--zzzz")


@pytest.fixture
def finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `dsvl describe` find the model and do nothing else."""

    def answer(_console: object, _images: object, load: LoadOptions, *_: object, **__: object) -> None:
        find_checkpoint(load, Silence())

    monkeypatch.setattr("dsvl_cli.app.describe.answer_all", answer)


@pytest.mark.usefixtures("finding")
@pytest.mark.parametrize(
    ("line", "told", "hint"),
    [
        ("descrobe x.png", "there is no command descrobe", "did you mean dsvl describe?"),
        ("help", "there is no command help", "did you mean dsvl --help?"),
        ("caption x.png", "there is no command caption", "did you mean dsvl describe?"),
        ("photo.jpg", "there is no command photo.jpg", "dsvl describe photo.jpg"),
        ("--model tiny chat", "there is no option --model", "dsvl COMMAND --model"),
        ("describe x.png --nosuch", "there is no option --nosuch", "dsvl describe --help lists the options"),
        ("--versoin", "there is no option --versoin", "did you mean --version?"),
        ("sessions", "dsvl sessions needs a command: list", "dsvl sessions --help"),
        ("sessions lsit", "there is no command lsit", "did you mean dsvl sessions list?"),
        ("describe x.png -model tiny", "there is no option -model", "did you mean --model?"),
        ("describe x.png --json=1", "--json takes no value", "write --json alone"),
        ("describe x.png --load-in-4bit", "there is no option --load-in-4bit", "did you mean --quantization 4bit?"),
        ("describe x.png --dtype float", "--dtype is float; it must be one of auto", "did you mean float"),
        ("describe x.png --temp -1", "--temp is -1; it must be a number between 0 and 100", ""),
        ("describe x.png --temp 0 --temp 1e9", "--temp is 1e9; it must be", ""),
        ("describe x.png --stop a --stop=", "--stop is ''; it must be a text that is not empty", ""),
        ("describe x.png -m nope", "there is no model 'nope'", "tiny"),
    ],
)
def test_what_people_type(fails: Failing, line: str, told: str, hint: str) -> None:
    found = fails(*line.split(" "))
    assert found.startswith(f"error: {told}")
    assert hint in found


@pytest.mark.usefixtures("finding")
@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("DSVL_MODEL", "nope", "there is no model 'nope' (DSVL_MODEL)"),
        ("DSVL_REVISION", "main", "DSVL_REVISION needs a model from the hub, but tiny is a local one"),
    ],
)
def test_what_the_engine_refuses_names_the_variable(
    fails: Failing, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    arguments = ["--model", "tiny"] if variable != "DSVL_MODEL" else []
    assert fails("describe", "x.png", *arguments).startswith(f"error: {told}\n")


@pytest.mark.usefixtures("finding")
@pytest.mark.parametrize(
    ("variable", "near"), [("DSVL_TEMPRATURE", "DSVL_TEMPERATURE"), ("DSVL_MODLE", "DSVL_MODEL"), ("DSVL_OTHER", None)]
)
def test_a_misspelt_variable_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str, near: str | None
) -> None:
    monkeypatch.setenv(variable, "x")
    assert main(["describe", "x.png", "-m", "tiny"]) == 0
    assert capsys.readouterr().err == (f"{variable} is not used; did you mean {near}?\n" if near else "")


@given(st.data())
def test_options_are_read_as_the_parser_reads_them(data: st.DataObject) -> None:
    _, command, context = next(found for found in WALKED if found[0] == ("describe",))
    options = [found for found in command.get_params(context) if found.param_type_name == "option"]
    plain = [found for found in options if found.name not in ("help", "profile", "model") and found.name not in RULES]
    arguments, expected = [], {}
    for option in data.draw(st.lists(st.sampled_from(plain), max_size=5)):
        name = data.draw(st.sampled_from(option.opts))
        value = data.draw(st.sampled_from(["a", "=", "a b", "-", "1"]))
        if option.is_flag:
            arguments.append(name)
        elif data.draw(st.booleans()):
            arguments += [name, value]
        else:
            arguments.append(f"{name}={value}" if name.startswith("--") else f"{name}{value}")
        expected[option.name] = True if option.is_flag else value
    found = {
        each.option.name: each.value if each.value is not None else True for each in read_written(arguments, options)
    }
    assert found == expected
    parsed = command.make_context("describe", ["x.png", *arguments])
    assert {name: parsed.params[name] for name in expected} == expected

"""Bytes that are not UTF-8, in any option, variable or argument of any command: an error of the user's, or a path."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import typer

from dsvl_cli.cli import app, main
from dsvl_cli.commands.tree import Command, read_commands

TEXT = "caf\udce9"  # what Python makes of the bytes `caf\xe9`
COMMANDS = [command for command in read_commands(typer.main.get_command(app)) if not command.children]
# What a command needs besides; the others get an x for each argument.
NEEDED = {"dsvl batch": ["p.png", "-o", "o.jsonl"], "dsvl describe": ["p.png"], "dsvl quantize": ["nowhere", "out"]}


def lines(command: Command) -> list[tuple[list[str], dict[str, str]]]:
    """The arguments and the variables to try."""
    words = command.path.split()[1:]
    names = {name for option in command.options for name in option.names}
    tiny = ["--model", "tiny"] if "--model" in names else []
    needed = NEEDED.get(command.path, ["x"] * len(command.arguments))
    found: list[tuple[list[str], dict[str, str]]] = []
    for option in command.options:
        if option.value is not None:
            rest = [*needed, *(tiny if "--model" not in option.names else [])]
            found.append(([*words, option.names[0], TEXT, *rest], {}))
            if option.variable:
                found.append(([*words, *rest], {option.variable: TEXT}))
    places = range(len(command.arguments))
    return [*found, *(([*words, *needed[:place], TEXT, *needed[place + 1 :], *tiny], {}) for place in places)]


@pytest.mark.fault("texts in a wrong encoding")
@pytest.mark.skipif(sys.platform == "win32", reason="arguments are text there")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path.replace(" ", "-"))
def test_no_text_is_a_bug(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSVL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("EDITOR", "true")
    for arguments, variables in lines(command):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr("sys.stdin", io.StringIO(""))
            status = main(arguments)
        error = capsys.readouterr().err
        assert status in (0, 1, 2), (arguments, variables, error)
        assert "surrogate" not in error

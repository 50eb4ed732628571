"""Commands that are built when they are run: the list of them says what the commands themselves say."""

from __future__ import annotations

import subprocess
import sys
from typing import cast

import pytest
import typer

from dsvl_cli.cli import app
from dsvl_cli.commands.lazy import LazyCommands, LazyGroup

GROUP = cast(LazyGroup, typer.main.get_command(app))


@pytest.mark.parametrize("name", GROUP.commands)
def test_a_listed_line_is_the_first_of_the_commands_own_help(name: str) -> None:
    listed = GROUP.get_command(typer.Context(GROUP), name)
    assert listed is not None
    assert listed.help == (GROUP.commands[name].help or "").split("\n\n")[0].replace("\n", " ")


@pytest.mark.parametrize("name", GROUP.commands)
def test_a_command_is_named_and_explained(name: str) -> None:
    run = subprocess.run([sys.executable, "-m", "dsvl_cli", name, "--help"], capture_output=True, text=True, check=True)
    assert f"Usage: dsvl {name} " in run.stdout
    assert "--install-completion" not in run.stdout


def test_the_list_builds_no_command() -> None:
    script = (
        "import sys; from dsvl_cli.cli import main; assert main(['--help']) == 0; "
        "print(sorted(name[18:] for name in sys.modules if name.startswith('dsvl_cli.commands.')))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "['base', 'help', 'lazy']"


def test_a_command_is_built_once() -> None:
    commands = LazyCommands({"look": "dsvl_cli.commands.doctor:doctor"})
    assert list(commands) == ["look"]
    assert commands["look"] is commands["look"]
    assert commands["look"].name == "look"
    assert "talk" not in commands

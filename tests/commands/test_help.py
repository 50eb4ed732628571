"""The help of every command at every width: no types of Python, nothing broken within, examples as in a shell."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import typer

from dsvl_cli.cli import app, main
from dsvl_cli.commands.tree import Command, read_commands

COMMANDS = list(read_commands(typer.main.get_command(app)))
WIDTHS = [120, 80, 60, 40]
Page = Callable[[Command, int], list[str]]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Page:
    """The lines of a command's help at a width."""

    def show(command: Command, width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        assert main([*command.path.split()[1:], "--help"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.splitlines()

    return show


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS, ids=[command.path for command in COMMANDS])
def test_names_choices_and_examples_are_whole_at_every_width(page: Page, command: Command, width: int) -> None:
    lines = page(command, width)
    text = "\n".join(lines)
    assert lines[0].startswith(f"Usage: {command.path} [OPTIONS]")
    assert not re.search(r"<(?!image>)|\]\.\.\.|\[\[|[╭│╰─]|\[/|\[dim|\[bold|\x1b|\xa0", text)
    words = set(re.split(r"[\s,]+|(?<=\w)\.(?=\s|$)", text))
    for option in command.options:
        assert {*option.names} <= words, option.names
        if option.value is not None and not option.value.paths and option.value.name not in ("model", "profile"):
            wanted = option.metavar.split("|") if "|" in option.metavar else [option.metavar]
            assert {*wanted} <= words | {part for word in words for part in word.split("|")}, option.names
    for line in re.findall(r"^\$ .*$", command.epilog, re.MULTILINE):
        assert f"  {line}" in lines
    for line in lines:
        is_example = line.startswith("  $ ")
        is_name = line.lstrip().startswith("-") or len(line.split()) == 1
        assert len(line) <= min(width, 100) or (width < 80 and (is_example or is_name)), line


def test_meanings_are_beside_the_names_where_there_is_room_and_below_them_elsewhere(page: Page) -> None:
    describe = next(command for command in COMMANDS if command.path == "dsvl describe")
    assert any(re.fullmatch(r" {6}--together +Ask once .*", line) for line in page(describe, 80))
    narrow = page(describe, 40)
    assert narrow[narrow.index("  --together") + 1].startswith("      Ask once")


def test_defaults_bounds_and_choices_are_on_the_page(page: Page) -> None:
    describe = next(command for command in COMMANDS if command.path == "dsvl describe")
    text = " ".join(" ".join(page(describe, 80)).split())
    assert "One of: auto, bfloat16, float16, float32. [default: auto]" in text
    assert "One of: auto, cpu, cuda[:N], mps, xpu. [default: auto]" in text
    assert "--device-map auto" in text
    assert "(at least 1). [default: 512]" in text
    assert text.index("Answer:") < text.index("Model:") < text.index("Options:") < text.index("Examples:")

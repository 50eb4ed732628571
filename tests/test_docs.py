"""The pages of docs/: current, complete, and linked to what exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dsvl_cli.cli import app
from dsvl_cli.commands.tree import Command, read_commands
from dsvl_cli.errors import ExitStatus

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
COMMANDS = list(read_commands(typer.main.get_command(app)))


def run(*command: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(home)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def page_of(command: Command) -> str:
    name = [*command.path.split(), ""][1] or "dsvl"
    return (DOCS / "commands" / f"{name}.md").read_text("utf-8")


def test_pages_are_current(tmp_path: Path) -> None:
    done = run(sys.executable, DOCS / "generate.py", "--check", home=tmp_path)
    assert done.returncode == 0, done.stderr


def test_check_reports_what_is_stale_or_left_over(tmp_path: Path) -> None:
    copy = tmp_path / "docs"
    shutil.copytree(DOCS, copy)
    path = copy / "commands" / "describe.md"
    path.write_text(path.read_text("utf-8").replace("--dtype", "--type"), "utf-8")
    (copy / "commands" / "gone.md").write_text("# dsvl gone\n", "utf-8")
    stale = run(sys.executable, copy / "generate.py", "--check", home=tmp_path)
    assert stale.returncode == 1
    assert re.search(r"^-.*--type", stale.stderr, re.MULTILINE)
    assert re.search(r"^\+.*--dtype", stale.stderr, re.MULTILINE)
    assert "-# dsvl gone" in stale.stderr
    assert run(sys.executable, copy / "generate.py", home=tmp_path).returncode == 0
    assert path.read_text("utf-8") == (DOCS / "commands" / "describe.md").read_text("utf-8")
    assert not (copy / "commands" / "gone.md").exists()


@pytest.mark.parametrize("command", COMMANDS, ids=[command.path for command in COMMANDS])
def test_a_page_has_everything_of_its_command(command: Command) -> None:
    text = page_of(command)
    plain = text.replace("\\", "")
    assert " ".join(command.help.split("\n\n")[0].split()) in plain
    for option in command.options:
        (row, *_) = [line for line in plain.splitlines() if line.startswith(f"| `{option.names[0]}`")]
        assert all(
            f"`{part}`" in row for part in (*option.names, option.metavar, option.default, option.variable) if part
        )
        assert option.help in row
    assert all(f"| `{argument.usage}` |" in text for argument in command.arguments)
    for line in re.findall(r"^\$ .*", command.epilog, re.MULTILINE):
        assert f"\n{line}\n" in text
    assert all(f"| {status.value} |" in text for status in ExitStatus)


def test_the_index_leads_to_every_page() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(([^)]+\.md)\)", index)) - {"../README.md"}
    assert linked == {path.relative_to(DOCS).as_posix() for path in PAGES} - {"README.md"}


@pytest.mark.parametrize("page", PAGES, ids=[path.relative_to(DOCS).as_posix() for path in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target


def test_every_file_that_a_page_names_is_there() -> None:
    root = Path(__file__).parents[1]
    pages = [*root.glob("*.md"), *root.glob("docs/*.md")]
    pattern = re.compile(r"\b(?:tests|dsvl_cli)/[\w/]+\.(?:py|c)\b")
    named = {(page.name, name) for page in pages for name in pattern.findall(page.read_text("utf-8"))}
    assert ("SECURITY.md", "tests/engine/checkpoint/test_hub.py") in named
    assert [(page, name) for page, name in sorted(named) if not (root / name).is_file()] == []

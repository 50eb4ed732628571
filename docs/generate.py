"""Write the pages of `docs/` that follow from the command line: `commands/`, a page a command, and the index.

`python docs/generate.py` rewrites them; with `--check` it only compares. The pages beside the index are written by
hand: the index takes their title and their first sentence.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from dsvl_cli.cli import app
from dsvl_cli.commands.tree import Argument, Command, Option, read_commands
from dsvl_cli.errors import ExitStatus
from dsvl_cli.terminal.chat.slash.registry import COMMANDS as SLASH_COMMANDS

_NOTE = "<!-- Written by docs/generate.py out of the command line itself: change the help there, not this page. -->"
_STATUSES = {
    ExitStatus.OK: "success",
    ExitStatus.ERROR: "an error, in one line with a hint; or some pictures failed",
    ExitStatus.USAGE: "the command line or a setting is wrong",
    ExitStatus.BUG: "a bug in dsvl; `--debug` shows the traceback",
    ExitStatus.HANGUP: "the terminal was closed (SIGHUP)",
    ExitStatus.INTERRUPTED: "Ctrl-C (SIGINT)",
    ExitStatus.TERMINATED: "terminated (SIGTERM)",
}


def render_page(commands: list[Command]) -> Iterator[str]:
    """Yield the lines of a page: a command, then those below it."""
    top, *below = commands
    yield from (f"# {top.path}", "", _NOTE)
    yield from _render_command(top, "##", [(child, f"#{'-'.join(child.path.split())}") for child in below])
    for command in below:
        yield from ("", f"## {command.path}")
        yield from _render_command(command, "###", [])
    if top.path == "dsvl chat":
        rows = [(_code(command.usage), _escape(command.help)) for command in SLASH_COMMANDS]
        yield from ("", "## Commands within a chat", "", *_table(("command", "meaning"), rows))
    rows = [(str(status.value), meaning) for status, meaning in _STATUSES.items()]
    yield from ("", "## Exit statuses", "", *_table(("status", "meaning"), rows))


def _render_command(command: Command, heading: str, children: list[tuple[Command, str]]) -> Iterator[str]:
    for paragraph in command.help.split("\n\n"):
        yield from ("", _prose(paragraph))
    # A group has options, but they come before a command of it and are of no use there.
    words = ["COMMAND ..."] if command.children else [argument.usage for argument in command.arguments]
    yield from ("", "```", " ".join([command.path, "[OPTIONS]", *words]), "```")
    if children:
        rows = [(f"[`{child.path}`]({link})", _prose(child.help.split("\n\n")[0])) for child, link in children]
        yield from ("", f"{heading} Commands", "", *_table(("command", "meaning"), rows))
    if command.arguments:
        yield from ("", f"{heading} Arguments", "", *_render_arguments(command.arguments))
    groups: dict[str, list[Option]] = {}
    for option in command.options:
        groups.setdefault(option.panel or "Options", []).append(option)
    for panel, options in groups.items():
        yield from ("", f"{heading} {panel}", "", *_render_options(options))
    if command.epilog:
        yield from _render_epilog(command.epilog, heading)


def _render_arguments(arguments: Iterable[Argument]) -> list[str]:
    return _table(("argument", "meaning"), [(_code(found.usage), _prose(found.help)) for found in arguments])


def _render_options(options: Iterable[Option]) -> list[str]:
    rows = []
    for option in options:
        names = ", ".join(_code(name) for name in option.names)
        shown = f"{names} {_code(option.metavar)}" if option.metavar else names
        rows.append((shown, _prose(option.help), _code(option.default), _code(option.variable)))
    return _table(("option", "meaning", "default", "environment"), rows)


def _render_epilog(epilog: str, heading: str) -> Iterator[str]:
    """Yield the examples as one block of a shell, then what follows them."""
    lines = epilog.strip().split("\n")
    end = max((number for number, line in enumerate(lines, 1) if line.startswith("$ ")), default=0)
    if end:
        yield from ("", f"{heading} Examples", "", "```sh", *lines[:end], "```")
    for text in filter(None, lines[end:]):
        yield from ("", _prose(text))


def render_index(commands: list[Command], pages: Iterable[Path]) -> Iterator[str]:
    """Yield the lines of the index."""
    yield from (
        "# Documentation of dsvl",
        "",
        _NOTE,
        "",
        "Begin with [the README](../README.md).",
        "",
        "## Commands",
        "",
    )
    for command in commands:
        if len(command.path.split()) <= 2:
            summary = command.help.split("\n\n")[0]
            yield f"- [{command.path}](commands/{_file_name(command)}): {_prose(summary)}"
    yield from ("", "## Subjects", "")
    for page in pages:
        title, text = page.read_text(encoding="utf-8").removeprefix("# ").split("\n\n")[:2]
        sentence = re.split(r"(?<=[.:])\s", " ".join(text.split()), maxsplit=1)[0]
        yield f"- [{title}]({page.name}): {sentence.rstrip(':.')}."


def render(folder: Path) -> dict[Path, str]:
    """Return the text of each generated file, by its path below the folder of the pages."""
    commands = list(read_commands(typer.main.get_command(app)))
    root, *others = commands
    texts = {"README.md": render_index(commands, sorted(set(folder.glob("*.md")) - {folder / "README.md"}))}
    texts["commands/dsvl.md"] = render_page([root])
    for _, found in itertools.groupby(others, key=lambda command: command.path.split()[1]):
        group = list(found)
        texts[f"commands/{_file_name(group[0])}"] = render_page(group)
    return {folder / name: "\n".join(lines) + "\n" for name, lines in texts.items()}


def _file_name(command: Command) -> str:
    return f"{command.path.split()[-1]}.md"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return a Markdown table; columns that are empty in every row are left out."""
    rows = list(rows)
    kept = [number for number in range(len(head)) if any(row[number] for row in rows)]
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(line[number].replace("|", r"\|") for number in kept) + " |" for line in lines]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _prose(text: str) -> str:
    """Return a paragraph in one line; what Markdown would take as its own is escaped outside of code."""
    pieces = " ".join(text.split()).split("`")
    return "`".join(piece if number % 2 else _escape(piece) for number, piece in enumerate(pieces))


def _escape(text: str) -> str:
    return re.sub(r"([\\*\[\]<>])", r"\\\1", text)


def main() -> int:
    """Write the pages, or check them; return the exit status."""
    parser = argparse.ArgumentParser(description="Bring the generated pages of docs/ up to date.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is not current")
    check = parser.parse_args().check
    folder = Path(__file__).resolve().parent
    status = 0
    wanted = render(folder)
    existing = {*(folder / "commands").glob("*.md"), *filter(Path.exists, wanted)}
    for path in sorted({*wanted, *existing}):
        text = wanted.get(path, "")
        current = path.read_text(encoding="utf-8") if path in existing else ""
        if text == current:
            continue
        if check:
            names = path.relative_to(folder).as_posix(), "as python docs/generate.py has it"
            sys.stderr.writelines(
                difflib.unified_diff(current.splitlines(keepends=True), text.splitlines(keepends=True), *names)
            )
            status = 1
        elif text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            path.unlink()
    return status


if __name__ == "__main__":
    sys.exit(main())

"""Bring the completion scripts of all shells up to date with the commands of `dsvl`.

`python completions/generate.py` rewrites, in each script, what stands between the lines `BEGIN` and `END`; the rest is
written by hand. With `--check` it only compares. The scripts know everything beforehand, so Tab starts no Python,
except to list the saved conversations.

What an option completes comes from its declaration, see `dsvl_cli.commands.tree`. So a new command or option needs no
change here.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from dsvl_cli.cli import app
from dsvl_cli.commands.tree import Command, Option, Value, read_commands
from dsvl_cli.engine.pictures.images import PICTURE_EXTENSIONS

_BEGIN, _END = "# BEGIN of what generate.py writes", "# END of what generate.py writes"
_POSIX, _FISH, _POWERSHELL = r"'\''", r"\'", "''"  # an apostrophe between apostrophes
_EXTENSIONS = tuple(extension.removeprefix(".") for extension in PICTURE_EXTENSIONS)


def collect_values(commands: list[Command]) -> list[Value]:
    """Return the different values that have something to offer.

    Raises:
        ValueError: options of the same name offer different things.
    """
    found = dict[str, Value]()
    every = [(*(option.value for option in c.options), *(value for _, value in c.places())) for c in commands]
    for value in itertools.chain.from_iterable(every):
        if value and found.setdefault(value.name, value) != value:
            raise ValueError(f"two options called {value.name} offer different values; give one another name")
    return [value for value in found.values() if value.words or value.paths]


def render_bash(commands: list[Command]) -> Iterator[str]:
    """Yield what each command has, what follows each option or argument, and the values of each kind."""
    places = dict[str, list[str]]()
    yield "_dsvl_command() {\n    case $1 in"
    for command in commands:
        groups = " ".join("+" * option.repeatable + ",".join(option.names) for option in command.options)
        children = " ".join(key for key, _ in command.children)
        yield f"        {_quote(command.path)}) commands={_quote(children)} options={_quote(groups)} ;;"
        for option in command.options:
            if option.value:
                keys = [_quote(f"{command.path}|{name}") for name in option.names]
                places.setdefault(option.value.name, []).extend(keys)
        for place, value in command.places():
            key = _quote(f"{command.path}|") + "[0-9]*" if place == "*" else _quote(f"{command.path}|{place}")
            places.setdefault(value.name, []).append(key)
    yield "    esac\n}\n\n_dsvl_kind() {\n    case $1 in"
    # Patterns for arguments that may be repeated come last: they would hide the place of an argument before them.
    for is_pattern in (False, True):
        for name, keys in places.items():
            chosen = [key for key in keys if key.endswith("*") == is_pattern]
            if chosen:
                yield f"        {' | '.join(chosen)}) kind={name} ;;"
    yield "        *) return 1 ;;\n    esac\n}\n\n_dsvl_values() {\n    case $1 in"
    for value in collect_values(commands):
        words = " ".join(word for word, _ in value.words)
        yield f"        {value.name}) values={_quote(words)} paths={value.paths} ;;"
    pictures = " | ".join("*." + "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in e) for e in _EXTENSIONS)
    yield "        *) values='' paths='' ;;\n    esac\n}\n\n_dsvl_is_picture() {\n    case $1 in"
    yield f"        {pictures}) ;;"
    yield "        *) return 1 ;;\n    esac\n}"


def render_zsh(commands: list[Command]) -> Iterator[str]:
    """Yield the values of each kind and a function for each command."""
    yield f"_dsvl_pictures='*.(#i)({'|'.join(_EXTENSIONS)})'\n\n_dsvl_values() {{\n    case $1 in"
    for value in collect_values(commands):
        words = " ".join(_quote(_pair(word, text)) for word, text in value.words)
        yield f"        {value.name}) values=({words}) paths={value.paths} ;;"
    yield "    esac\n}"
    for command in commands:
        name = "_" + command.path.replace(" ", "_")
        specs = [spec for option in command.options for spec in _zsh_option(option)]
        specs += [f"{'' if place == '1' else place}:{_zsh_value(value)}" for place, value in command.places()]
        if command.children:
            known = "".join(f"\n        {_quote(_pair(*child))}" for child in command.children)
            yield f"\n{name}__commands() {{\n    local -a known=({known}\n    )\n    _describe command known\n}}"
            specs += [f"1:command: {name}__commands", f"*::argument: _dsvl_call {name}"]
        yield f"\n{name}() {{\n    _arguments -S" + "".join(f" \\\n        {_quote(s)}" for s in specs) + "\n}"


def _zsh_option(option: Option) -> Iterator[str]:
    before = "*" if option.repeatable else f"({' '.join(option.names)})"
    text = option.help.replace("[", r"\[").replace("]", r"\]")
    for name in option.names:
        equals = "=" if name.startswith("--") else "+"
        yield f"{before}{name}" + (f"{equals}[{text}]:{_zsh_value(option.value)}" if option.value else f"[{text}]")


def _zsh_value(value: Value) -> str:
    # A single space as the action: only the label is shown.
    action = f" _dsvl_offer {value.name}" if value.words or value.paths else " "
    return value.label.replace(":", r"\:") + f":{action}"


def render_fish(commands: list[Command]) -> Iterator[str]:
    """Yield the values of each kind and a `complete` for each sub-command, option and argument."""
    yield f"set -g __dsvl_commands {' '.join(_quote(command.path) for command in commands)}"
    yield f"set -g __dsvl_extensions '{'|'.join(_EXTENSIONS)}'\n\nfunction __dsvl_values\n    switch $argv[1]"
    for value in collect_values(commands):
        yield f"        case {value.name}"
        for word, text in value.words:
            yield f"            printf '%s\\t%s\\n' {_quote(word, _FISH)} {_quote(text, _FISH)}"
        if value.paths:
            yield f"            __dsvl_paths {value.paths}"
    yield "    end\nend\n\ncomplete -c dsvl -f"
    for command in commands:
        start = f'complete -c dsvl -n "__dsvl_at {_quote(command.path)}"'
        for name, text in command.children:
            yield f"{start} -a {name} -d {_quote(text, _FISH)}"
        for value in dict.fromkeys(value for _, value in command.places() if value.words or value.paths):
            yield f"{start} -a '(__dsvl_values {value.name})'"
        for option in command.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            after = f" -x -a '(__dsvl_values {option.value.name})'" if option.value else ""
            yield f"{start} {names}{after} -d {_quote(option.help, _FISH)}"


def render_powershell(commands: list[Command]) -> Iterator[str]:
    """Yield the tables of values and of commands."""
    yield f"$dsvlExtensions = '{'|'.join(_EXTENSIONS)}'\n$dsvlValues = @{{"
    for value in collect_values(commands):
        yield f"    {value.name} = @{{ Paths = '{value.paths}'; Words = {_powershell_pairs(value.words)} }}"
    yield "}\n$dsvlCommands = @{"
    for command in commands:
        yield f"    '{command.path}' = @{{\n        Commands = {_powershell_pairs(command.children)}"
        yield f"        Arguments = @({', '.join(_quote(value.name, _POWERSHELL) for _, value in command.places())})"
        yield "        Options = @("
        for option in command.options:
            names = ", ".join(f"'{name}'" for name in option.names)
            kind = f"'{option.value.name}'" if option.value else "$null"
            rest = f"Kind = {kind}; Repeatable = ${option.repeatable}; Help = {_quote(option.help, _POWERSHELL)}"
            yield f"            @{{ Names = @({names}); {rest} }}"
        yield "        )\n    }"
    yield "}"


def _powershell_pairs(pairs: tuple[tuple[str, str], ...]) -> str:
    inner = ", ".join(f"@({_quote(word, _POWERSHELL)}, {_quote(text, _POWERSHELL)})" for word, text in pairs)
    return f"@({',' * (len(pairs) == 1)}{inner})"  # without the comma, a list of one list is that list


def _pair(word: str, text: str) -> str:
    return word.replace(":", r"\:") + (f":{text}" if text else "")


def _quote(text: str, apostrophe: str = _POSIX) -> str:
    return "'" + text.replace("'", apostrophe) + "'"


_RENDERERS = {"dsvl.bash": render_bash, "_dsvl": render_zsh, "dsvl.fish": render_fish, "dsvl.ps1": render_powershell}


def main() -> int:
    """Write the scripts, or check them; return the exit status."""
    parser = argparse.ArgumentParser(description="Bring the completion scripts of dsvl up to date.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a script is not current")
    check = parser.parse_args().check
    commands = list(read_commands(typer.main.get_command(app)))
    status = 0
    for name, render in _RENDERERS.items():
        path = Path(__file__).with_name(name)
        current = path.read_text(encoding="utf-8")
        before, after = current.split(_BEGIN)[0], current.split(_END)[1]
        wanted = "\n".join([before + _BEGIN, *render(commands), _END + after])
        if not check:
            path.write_text(wanted, encoding="utf-8", newline="\n")
        elif wanted != current:
            lines = current.splitlines(keepends=True), wanted.splitlines(keepends=True)
            sys.stderr.writelines(
                difflib.unified_diff(*lines, name, f"{name}, as python completions/generate.py has it")
            )
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The completion scripts: current, whole, and right in every shell that is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from dsvl_cli.cli import app
from dsvl_cli.engine.checkpoint.find import ALIASES
from dsvl_cli.engine.options import Dtype
from dsvl_cli.engine.pictures.images import PICTURE_EXTENSIONS

_ROOT = Path(__file__).resolve().parent.parent
_SCRIPTS = _ROOT / "completions"
_NAMES = ("dsvl.bash", "_dsvl", "dsvl.fish", "dsvl.ps1")
_FOLDERS = {"album", "my pictures"}
_DTYPES = get_args(Dtype)
_PICTURES = {"a.png", "B.JPG", "two words.webp"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in _FOLDERS:
        (tmp_path / name).mkdir()
    for name in (*_PICTURES, "notes.txt", "album/inside.gif", "album/inside.txt"):
        (tmp_path / name).touch()
    return tmp_path


def _run(*command: str | Path, folder: Path = _ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _find(shell: str) -> str:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not here")
    return program


def _flags(command: Any, name: str = "dsvl", parent: Any = None) -> Iterator[tuple[str, str]]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    for parameter in command.get_params(context):
        if parameter.param_type_name == "option" and not parameter.hidden:
            yield from ((context.command_path, flag) for flag in (*parameter.opts, *parameter.secondary_opts))
    for key, child in getattr(command, "commands", {}).items():
        yield from _flags(child, key, context)


def _complete_in_bash(folder: Path, *words: str) -> list[str]:
    script = 'source "$1"; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _dsvl; printf "%s\\n" "${COMPREPLY[@]}"'
    done = _run(_find("bash"), "--norc", "-c", script, "bash", _SCRIPTS / "dsvl.bash", *words, folder=folder)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def _complete_in_fish(folder: Path, line: str) -> list[str]:
    script = 'source "$argv[1]"; complete -C "$argv[2]"'
    done = _run(_find("fish"), "--no-config", "-c", script, _SCRIPTS / "dsvl.fish", line, folder=folder)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_scripts_are_current() -> None:
    done = _run(sys.executable, _SCRIPTS / "generate.py", "--check")
    assert done.returncode == 0, done.stderr


def test_the_wheel_installs_every_script() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
    installed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert set(installed) == {f"completions/{name}" for name in _NAMES}
    explained = (_ROOT / "docs" / "completion.md").read_text("utf-8")
    assert all(place in explained for place in installed.values())


def test_check_tells_what_is_stale(tmp_path: Path) -> None:
    copy = tmp_path / "completions"
    shutil.copytree(_SCRIPTS, copy)
    path = copy / "dsvl.fish"
    path.write_text(path.read_text("utf-8").replace("-l dtype", "-l type"), "utf-8")
    stale = _run(sys.executable, copy / "generate.py", "--check")
    assert stale.returncode == 1
    assert re.search(r"^-.*-l type", stale.stderr, re.MULTILINE)
    assert re.search(r"^\+.*-l dtype", stale.stderr, re.MULTILINE)
    assert _run(sys.executable, copy / "generate.py").returncode == 0
    assert path.read_text("utf-8") == (_SCRIPTS / "dsvl.fish").read_text("utf-8")


@pytest.mark.parametrize("name", _NAMES)
def test_every_script_knows_every_flag_and_alias(name: str) -> None:
    text = (_SCRIPTS / name).read_text("utf-8")
    for _, flag in _flags(typer.main.get_command(app)):
        dashes = "--" if flag.startswith("--") else "-"
        shown = f"{'-l' if dashes == '--' else '-s'} {flag.removeprefix(dashes)}" if name.endswith(".fish") else flag
        assert re.search(rf"(?<![\w-]){re.escape(shown)}(?![\w-])", text), flag
    for word in (*ALIASES, *_DTYPES):
        assert re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w.-])", text), word
    # bash 3.2 has no other way to ignore the case than [jJ]
    plain = re.sub(r"\[(\w)[A-Z]\]", r"\1", text)
    assert all(re.search(rf"\b{extension[1:]}\b", plain) for extension in PICTURE_EXTENSIONS)


def test_bash_offers_every_flag_where_it_belongs(folder: Path) -> None:
    flags = list(_flags(typer.main.get_command(app)))
    for command in {path for path, _ in flags}:
        offered = _complete_in_bash(folder, *command.split(), "-")
        assert sorted(offered) == sorted(flag for path, flag in flags if path == command)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["dsvl", "desc"], {"describe"}),
        (["dsvl", "sessions", "e"], {"export"}),
        (["dsvl", "chat", "--dtype", ""], set(_DTYPES)),
        (["dsvl", "chat", "--dtype", "="], set(_DTYPES)),
        (["dsvl", "chat", "--dtype", "=", "b"], {"bfloat16"}),
        (["dsvl", "chat", "--dtype=b"], {"--dtype=bfloat16"}),  # where COMP_WORDBREAKS has no =
        (["dsvl", "chat", "--device", "cuda", ":"], {"0"}),
        (["dsvl", "chat", "-m", ""], {*ALIASES, *_FOLDERS}),
        (["dsvl", "chat", "-m", "tiny", "--mo"], set()),
        (["dsvl", "chat", "--stop", "x", "--sto"], {"--stop"}),
        (["dsvl", "chat", "--seed", ""], set()),
        (["dsvl", "describe", ""], _PICTURES | _FOLDERS),
        (["dsvl", "describe", "a.png", "--dtype", "=", "auto", "two\\ w"], {"two words.webp"}),
        (["dsvl", "describe", '"two w'], {"two words.webp"}),
        (["dsvl", "describe", "album/"], {"album/inside.gif"}),
        (["dsvl", "describe", "--", "--d"], set()),
        (["dsvl", "sessions", "export", "kept", ""], _PICTURES | _FOLDERS | {"notes.txt"}),
        (["dsvl", "sessions", "export", ""], set()),
    ],
)
def test_bash_completes(folder: Path, words: list[str], offered: set[str]) -> None:
    assert set(_complete_in_bash(folder, *words)) == offered


@pytest.fixture
def conversations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `dsvl` that lists two saved conversations, in a folder on the search path."""
    program = folder / ".bin" / "dsvl"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        "#!/bin/sh\n"
        "printf '20260101-0900-bcd\\tmy cat\\tt\\t2\\t1\\ttiny\\tWhat is this?\\n'\n"
        "printf '20260102-1000-xyz\\t\\tt\\t2\\t0\\ttiny\\ta/b \\033[31m c: d\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize(
    "words", [["chat", "--session"], ["sessions", "rm"], ["sessions", "show"], ["sessions", "rename"]]
)
def test_bash_offers_conversations_with_their_titles(conversations: Path, words: list[str]) -> None:
    offered = _complete_in_bash(conversations, "dsvl", *words, "")
    assert offered == ["20260101-0900-bcd  my cat", "20260102-1000-xyz  a b  [31m c: d"]
    assert _complete_in_bash(conversations, "dsvl", *words, "20260102") == ["20260102-1000-xyz"]
    assert _complete_in_bash(conversations, "dsvl", *words, "x") == []


def test_fish_offers_conversations_with_their_titles(conversations: Path) -> None:
    offered = _complete_in_fish(conversations, "dsvl sessions rm 2026")
    assert offered == ["20260101-0900-bcd\tmy cat", "20260102-1000-xyz\ta/b  [31m c: d"]


def test_zsh_offers_conversations_with_their_titles(conversations: Path) -> None:
    script = """
        zmodload zsh/zpty && zpty shell "$1 -f -i"
        ask() { zpty -w shell "$1" }
        ask "PS1=; unsetopt beep; fpath=($2 \\$fpath); autoload -Uz compinit; compinit -u -D; print REA''DY"
        zpty -r shell answer '*READY*'
        zpty -w -n shell $'dsvl sessions show 2026\\t'
        zpty -r shell answer '*my cat*'
        print -r -- $answer
    """
    zsh = _find("zsh")
    done = _run(zsh, "-f", "-c", script, "zsh", zsh, _SCRIPTS, folder=conversations)
    assert "20260101-0900-bcd" in done.stdout, done.stdout + done.stderr


def test_fish_completes(folder: Path) -> None:
    assert _complete_in_fish(folder, "dsvl chat -m 1.3b-") == ["1.3b-base\t" + ALIASES["1.3b-base"]]
    assert _complete_in_fish(folder, "dsvl chat --dtype=b") == ["--dtype=bfloat16"]
    assert set(_complete_in_fish(folder, "dsvl describe ")) == _PICTURES | {f"{name}/" for name in _FOLDERS}
    assert [line.split("\t")[0] for line in _complete_in_fish(folder, "dsvl sessions e")] == ["export"]


def test_zsh_completes(folder: Path) -> None:
    script = """
        zmodload zsh/zpty && zpty shell "$1 -f -i"
        ask() { zpty -w shell "$1" }
        ask "PS1=; unsetopt beep; fpath=($2 \\$fpath); autoload -Uz compinit; compinit -u -D; print REA''DY"
        zpty -r shell answer '*READY*'
        zpty -w -n shell $'dsvl chat --dtype=b\\t; dsvl describe alb\\tin\\t; dsvl chat -m 1.3b-\\t'
        zpty -r shell answer '*1.3b-base*'
        print -r -- $answer
    """
    zsh = _find("zsh")
    done = _run(zsh, "-f", "-c", script, "zsh", zsh, _SCRIPTS, folder=folder)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)
    assert all(word in shown for word in ("bfloat16", "album/", "inside.gif", "1.3b-base")), done.stdout + done.stderr


def test_powershell_completes(folder: Path) -> None:
    script = f". '{_SCRIPTS / 'dsvl.ps1'}'; $line = 'dsvl chat --dtype b'; "
    script += "(TabExpansion2 $line $line.Length).CompletionMatches.CompletionText"
    done = _run(_find("pwsh"), "-NoProfile", "-Command", script, folder=folder)
    assert done.stdout.split() == ["bfloat16"], done.stderr


@pytest.mark.parametrize(("shell", "name"), [("bash", "dsvl.bash"), ("zsh", "_dsvl"), ("fish", "dsvl.fish")])
def test_syntax_is_right(shell: str, name: str) -> None:
    done = _run(_find(shell), "-n", _SCRIPTS / name)
    assert (done.returncode, done.stderr) == (0, "")


def test_zsh_script_can_lie_in_fpath() -> None:
    assert (_SCRIPTS / "_dsvl").read_text("utf-8").startswith("#compdef dsvl\n")

"""`dsvl config`: prints an example of `config.toml`, prints its path, or opens it in an editor."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.config import config_folder, read_config
from dsvl_cli.engine.options import DEFAULT_OVERFLOW, DEFAULT_PROMPT, Choices, LoadOptions, SamplingParams
from dsvl_cli.errors import DsvlError
from dsvl_cli.settings import SETTINGS, Setting
from dsvl_cli.terminal.editor import run_editor

if TYPE_CHECKING:
    from dsvl_cli.terminal.console import Console

_WIDTH = 100
_HEAD = """\
# Settings of dsvl. Remove the # before a setting to change it; what is shown is its default or an example.
# A setting may also be above the first table, or in the table of a command, such as [describe], for that
# command alone. Options and DSVL_<NAME> in the environment count before this file.
"""
_TAIL = """
# Groups of settings, for --profile NAME.
[profiles]
#fast = { model = "tiny", max_new_tokens = 64 }

# Names for --model: a hub id, or the full path of a folder.
[aliases]
#work = "~/models/deepseek-vl-7b"
"""
# What is shown for a setting that is not set by default.
_EXAMPLES: Mapping[str, Any] = {
    "revision": "main", "device_map": "auto", "threads": 1, "quantization": "4bit", "seed": 0, "stop": ["\n\n"],
    "samples": 1,
    "prompt": DEFAULT_PROMPT, "system": "You are a helpful assistant.", "overflow": DEFAULT_OVERFLOW,
}  # fmt: skip


def print_example(console: Console, meanings: Mapping[str, str]) -> None:
    """Print a `config.toml` with every setting; `meanings` says what each is."""
    console.write(render_example(meanings))


def print_path(console: Console) -> None:
    """Print the path of `config.toml`, and say if there is none."""
    path = _find_path(console)
    console.write(f"{path}\n")
    if not path.is_file():
        console.status("not there yet: dsvl config edit creates it")


def edit_config(console: Console, meanings: Mapping[str, str]) -> None:
    """Open `config.toml` in the user's editor, made from the example if there is none, and check it afterwards.

    Raises:
        UsageError: what was saved is wrong; with the line.
        DsvlError: the file cannot be written, or there is no editor.
    """
    path = _find_path(console)
    is_new = not path.exists()
    if is_new:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_example(meanings), encoding="utf-8")
    before = path.read_bytes()
    try:
        run_editor(path, console.environment.variables)
    except DsvlError:
        if is_new and path.is_file() and path.read_bytes() == before:
            path.unlink()
        raise
    read_config(console.environment.variables, folder=path.parent)
    console.status(f"{'no change' if path.read_bytes() == before else 'fine'}: {path}")


def render_example(meanings: Mapping[str, str]) -> str:
    """Return a `config.toml` in which every setting is a comment, below its meaning."""
    return "\n".join([_HEAD.rstrip("\n"), *_render_tables(meanings)]) + "\n" + _TAIL


def _render_tables(meanings: Mapping[str, str]) -> Iterator[str]:
    defaults = {field.name: field.default for kind in (LoadOptions, SamplingParams) for field in fields(kind)}
    for table, settings in SETTINGS.items():
        yield from ("", f"[{table}]")
        for name, setting in settings.items():
            value = _EXAMPLES.get(name, defaults.get(name, False))
            yield from _comment(meanings.get(name, ""), setting)
            yield f"#{name} = {json.dumps(value, ensure_ascii=False)}"


def _comment(meaning: str, setting: Setting) -> Iterator[str]:
    choices = f" One of: {', '.join(map(str, setting.offered))}." if isinstance(setting.rule, Choices) else ""
    text = " ".join(meaning.split()) + ("" if "one of" in meaning else choices)
    yield from textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _find_path(console: Console) -> Path:
    return config_folder(console.environment.variables) / "config.toml"

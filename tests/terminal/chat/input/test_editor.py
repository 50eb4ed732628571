from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.chat.input.editor import edit_text

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the editors here are shell scripts")


def script(folder: Path, name: str, body: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_the_text_is_there_and_what_was_saved_comes_back(tmp_path: Path) -> None:
    editor = script(tmp_path, "editor", 'tr a-z A-Z < "$1" > "$1.new" && mv "$1.new" "$1"')
    assert edit_text("hällo\nthere", {"EDITOR": editor, "PATH": os.environ["PATH"]}).startswith("H")


def test_visual_wins_and_may_have_arguments(tmp_path: Path) -> None:
    editor = script(tmp_path, "my editor", 'printf "%s" "$1" > "$2"')
    assert edit_text("", {"VISUAL": f"'{editor}' --flag", "EDITOR": "false"}) == "--flag"


def test_nobody_else_can_read_the_draft(tmp_path: Path) -> None:
    editor = script(tmp_path, "editor", 'ls -ld "$(dirname "$1")" | cut -c1-10 > "$1.x"; mv "$1.x" "$1"')
    assert edit_text("", {"EDITOR": editor, "PATH": os.environ["PATH"]}).strip() == "drwx------"


@pytest.mark.parametrize("editor", ["false", "/no/such/editor", "'unclosed"])
def test_an_editor_that_fails_is_told(editor: str) -> None:
    with pytest.raises(DsvlError, match=editor.strip("'")):
        edit_text("text", {"EDITOR": editor, "PATH": os.environ["PATH"]})

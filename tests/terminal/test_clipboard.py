from __future__ import annotations

import base64
from pathlib import Path

import pytest

from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.clipboard import copy_text
from tests.terminal.window import Window


def program(folder: Path, name: str, status: int = 0) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\n/bin/cat > "{folder}/{name}.copied"\nexit {status}\n')
    path.chmod(0o755)


def test_a_program_of_the_platform_takes_it(tmp_path: Path) -> None:
    program(tmp_path, "wl-copy")
    window = Window(variables={"PATH": str(tmp_path), "WAYLAND_DISPLAY": "wayland-0"})
    assert copy_text(window.console(), "ünï\n") == "the clipboard"
    assert (tmp_path / "wl-copy.copied").read_text(encoding="utf-8") == "ünï\n"
    assert window.bytes == b""


def test_a_program_that_fails_leaves_it_to_the_next(tmp_path: Path) -> None:
    program(tmp_path, "wl-copy", status=1)
    program(tmp_path, "xclip")
    window = Window(variables={"PATH": str(tmp_path), "WAYLAND_DISPLAY": "wayland-0", "DISPLAY": ":0"})
    assert copy_text(window.console(), "a") == "the clipboard"
    assert (tmp_path / "xclip.copied").exists()


@pytest.mark.parametrize("variables", [{}, {"SSH_CONNECTION": "1", "WAYLAND_DISPLAY": "wayland-0"}])
def test_the_terminal_is_asked_where_no_program_reaches_the_right_clipboard(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    program(tmp_path, "wl-copy")
    window = Window(variables={"PATH": str(tmp_path), **variables})
    assert "OSC 52" in copy_text(window.console(), "ünï\x1b")
    data = window.bytes.removeprefix(b"\x1b]52;c;").removesuffix(b"\x07")
    assert base64.b64decode(data).decode() == "ünï\x1b"


@pytest.mark.parametrize("text", ["a", "x" * 100_000])
def test_what_cannot_be_copied_is_an_error(tmp_path: Path, text: str) -> None:
    term = "dumb" if text == "a" else "xterm"
    window = Window(variables={"PATH": str(tmp_path), "TERM": term})
    with pytest.raises(DsvlError, match="clipboard") as error:
        copy_text(window.console(), text)
    assert "/export" in (error.value.hint or "")
    assert window.bytes == b""

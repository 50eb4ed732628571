"""Puts text on the clipboard: by a program of the platform, or by the terminal itself.

On this machine, a program is certain; over SSH it would reach the clipboard of the wrong machine, and only the terminal
knows the right one. OSC 52, the sequence that asks it, has no answer: many terminals obey it, some ignore it.
https://invisible-island.net/xterm/ctlseqs/ctlseqs.html#h3-Operating-System-Commands
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dsvl_cli.terminal.console import Console

_SECONDS = 5.0
_LONGEST_SEQUENCE = 74_994  # bytes of text that xterm and others take


def copy_text(console: Console, text: str) -> str:
    """Put text on the clipboard; return where it went, in words.

    Raises:
        DsvlError: there is no way to.
    """
    variables = console.environment.variables
    for command in _programs(variables):
        program = shutil.which(command[0], path=variables.get("PATH"))
        if program is None:
            continue
        try:
            # Some stay to serve the clipboard: they must not hold our streams.
            subprocess.run(
                [program, *command[1:]],
                input=text.encode("utf-16-le" if program.lower().endswith("clip.exe") else "utf-8", "replace"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
                check=True,
                env=dict(variables),
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return "the clipboard"
    data = text.encode("utf-8", "replace")
    if not console.can_redraw:
        raise DsvlError("there is no way to the clipboard here", "write the conversation to a file with /export PATH")
    if len(data) > _LONGEST_SEQUENCE:
        raise DsvlError("too long for the terminal's clipboard", "write the conversation to a file with /export PATH")
    console.draw(f"\x1b]52;c;{base64.b64encode(data).decode()}\x07")
    return "the terminal's clipboard, if it allows that (OSC 52)"


def _programs(variables: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    if variables.get("TMUX"):
        yield ("tmux", "load-buffer", "-w", "-")  # which also asks the terminal around it
    if variables.get("SSH_CONNECTION") or variables.get("SSH_TTY"):
        return
    if sys.platform == "darwin":
        yield ("pbcopy",)
    if variables.get("WAYLAND_DISPLAY"):
        yield ("wl-copy",)
    if variables.get("DISPLAY"):
        yield ("xclip", "-selection", "clipboard", "-in")
        yield ("xsel", "--clipboard", "--input")
    if sys.platform == "win32" or variables.get("WSL_DISTRO_NAME"):
        yield ("clip.exe",)

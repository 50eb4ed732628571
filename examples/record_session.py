"""Record a real session of `dsvl` for the README: `python examples/record_session.py` writes docs/session.svg.

The lines below are typed into bash in a pseudo-terminal, the next one when what is awaited is on the screen. What the
terminal shows at the end, colours included, becomes the picture. Needs Unix and the extra `test` (pyte).
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "session.svg"
COLUMNS, LINES, SECONDS = 92, 18, 300
_PROMPT, _CHAT = r"^\$ $", r"^> $"
# What is awaited as the last line, then what is typed.
SCRIPT = (
    (_PROMPT, "dsvl describe examples/three-shapes.png --model tiny"),
    (_PROMPT, "dsvl chat examples/two-shapes.jpg --model tiny --no-save"),
    (_CHAT, "What is on the right?"),
    (_CHAT, "And which colour is the square?"),
    (_CHAT, "/image examples/white-cross.png"),
    (_CHAT, "What is in the second picture?"),
    (_CHAT, ""),
)
_COLOURS = {"brown": "yellow", "brightbrown": "bright_yellow"}  # pyte's names for them


class _Screen(pyte.Screen):
    """A screen that answers what programs ask a terminal, such as where its cursor is."""

    def __init__(self, main: int) -> None:
        super().__init__(COLUMNS, LINES)
        self._main = main

    def write_process_input(self, data: str) -> None:
        os.write(self._main, data.encode())


class Terminal:
    """A program in a pseudo-terminal, and what its screen shows."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._main, child = pty.openpty()
        self.screen = _Screen(self._main)
        self._stream = pyte.ByteStream(self.screen)
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment, cwd=ROOT, start_new_session=True
        )
        os.close(child)

    def wait_for(self, pattern: str) -> None:
        """Wait until the line of the cursor is this and has been for a second.

        Raises:
            SystemExit: it is not in time.
        """
        end = time.monotonic() + SECONDS
        quiet = False
        while not (quiet and re.search(pattern, self.line)):
            if time.monotonic() > end:
                raise SystemExit(f"no {pattern} in {SECONDS} s:\n" + "\n".join(self.screen.display))
            quiet = not select.select([self._main], [], [], 1.0)[0]
            if not quiet:
                self._stream.feed(os.read(self._main, 65536))

    @property
    def line(self) -> str:
        """The line of the cursor, up to it."""
        cursor = self.screen.cursor
        return str(self.screen.display[cursor.y][: cursor.x])

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._main, f"{text}\r".encode())

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()
        os.close(self._main)


def render(screen: pyte.Screen) -> str:
    """Return the screen as SVG, up to its last line that has text."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    lines = []
    for y in range(LINES):
        cells = [screen.buffer[y][x] for x in range(COLUMNS)]
        line = Text()
        for style, run in itertools.groupby(cells, _style):
            line.append("".join(cell.data for cell in run), style)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop")
    svg = console.export_svg(title="dsvl", unique_id="dsvl")
    # rich names a font of the web, which no viewer of repositories loads.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def _style(cell: Any) -> Style:
    return Style(
        color=_colour(cell.fg), bgcolor=_colour(cell.bg), bold=cell.bold, italic=cell.italics,
        underline=cell.underscore, reverse=cell.reverse,
    )  # fmt: skip


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return _COLOURS.get(name, name.replace("bright", "bright_"))


def main() -> None:
    """Record the session."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "dsvl")
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dsvl_cli "$@"\n')
        script.chmod(0o755)
        environment = os.environ | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm-256color",
            "PS1": "$ ",
            "DSVL_CONFIG_DIR": folder,
            "COLUMNS": str(COLUMNS),
            "LINES": str(LINES),
        }
        environment.pop("NO_COLOR", None)
        terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], environment)
        try:
            for awaited, line in SCRIPT:
                terminal.wait_for(awaited)
                if line:
                    terminal.type(line)
            OUT.write_text(render(terminal.screen), encoding="utf-8")
        finally:
            terminal.close()


if __name__ == "__main__":
    main()

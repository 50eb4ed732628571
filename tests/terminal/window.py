"""A terminal without a process: what is written to its streams is shown by pyte, and kept as bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pyte

from dsvl_cli.terminal.console import Console, Environment

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Wire(io.BytesIO):
    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window

    def write(self, data: Any) -> int:
        self._window.feed(bytes(data))
        return len(data)


class _Stream(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Window:
    """A window of `columns` by `lines` with its history; stdout and stderr both go to it.

    Attributes:
        bytes: all that was written.
        variables: the environment variables, among them the window's size.
    """

    def __init__(
        self, columns: int = 80, lines: int = 24, encoding: str = "utf-8", variables: Mapping[str, str] | None = None
    ) -> None:
        size = {"COLUMNS": str(columns), "LINES": str(lines)}
        self.variables = {"TERM": "xterm-256color", **size, **(variables or {})}
        self.bytes = b""
        self._columns = columns  # the most there were
        self._screen = pyte.HistoryScreen(columns, lines, history=100_000, ratio=0.5)
        # As the terminal's driver does, a newline also returns to the first column.
        self._screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.ByteStream(self._screen)
        wire = _Wire(self)
        self.environment = Environment(
            stdin=io.StringIO(),
            stdout=_Stream(wire, encoding=encoding, newline="", write_through=True),
            stderr=_Stream(wire, encoding=encoding, newline="", write_through=True),
            variables=self.variables,
        )

    def console(self, **options: bool) -> Console:
        """Return a console that writes here."""
        return Console(self.environment, **options)

    def feed(self, data: bytes) -> None:
        """Show what was written."""
        self.bytes += data
        self._stream.feed(data)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size as terminals without reflow do: lines that do not fit scroll into the history.

        What stands right of a narrower window stays in `rows`: it was written, and the terminal hides it.
        """
        screen = self._screen
        row = screen.cursor.y
        excess = max(row - lines + 1, 0)
        screen.cursor.y = screen.lines - 1
        for _ in range(excess):
            screen.index()
        screen.cursor.y = row - excess
        for below in range(lines, screen.lines):
            screen.buffer.pop(below, None)
        screen.lines, screen.columns = lines, columns
        screen.set_margins()
        screen.cursor.y = row - excess
        self._columns = max(self._columns, columns)
        self.variables["COLUMNS"], self.variables["LINES"] = str(columns), str(lines)

    @property
    def rows(self) -> list[str]:
        """History and window, without blanks at the ends of rows and without blank rows at the end."""
        shown = [self._screen.buffer[row] for row in range(self._screen.lines)]
        lines = [*self._screen.history.top, *shown]
        rows = ["".join(line[column].data for column in range(self._columns)).rstrip() for line in lines]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def visible_rows(self) -> list[str]:
        """The window alone."""
        return [row.rstrip() for row in self._screen.display]

    @property
    def cursor(self) -> tuple[int, int]:
        """The cursor's row in the window and its column."""
        return self._screen.cursor.y, self._screen.cursor.x

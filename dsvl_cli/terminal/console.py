"""Output of the commands: answers to stdout, everything else to stderr.

Text for a terminal is sanitized; an answer for a pipe or a file is written verbatim. rich is imported only to draw
Markdown or pictures on a terminal, so that piped commands start fast.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
import textwrap
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.sanitize import sanitize, sanitize_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console as RichConsole

_ERASE_LINE = "\r\x1b[K"
# A redrawn line must stay one line, however wide the terminal renders its characters.
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_SPINNER = "|/-\\"
_SPINNER_SECONDS = 0.1

_BOLD, _DIM, _RED, _YELLOW = "1", "2", "1;31", "1;33"
_DUMB = ("dumb", "unknown")


@dataclass(frozen=True, slots=True)
class Environment:
    """The process's streams and environment; tests pass their own.

    Attributes:
        stdin, stdout, stderr: text streams; bytes go through their `buffer` if they have one.
        variables: the environment variables.
    """

    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    variables: Mapping[str, str]

    @classmethod
    def system(cls) -> Environment:
        """Return the real ones. If closed before the start, stdin is empty, stdout an error, and stderr discards."""
        return cls(sys.stdin or io.StringIO(), sys.stdout or _Closed(), sys.stderr or io.StringIO(), os.environ)


class _Closed(io.StringIO):
    """Stands for a stdout that is closed: answers must not vanish."""

    def write(self, _text: str, /) -> int:
        raise DsvlError("stdout is closed", "redirect it to a file, a pipe or the null device")


class Console:
    """Writes a command's output. A `BrokenPipeError` from stdout is left to the caller.

    Args:
        environment: the streams and variables.
        verbose: show the engine's choices and the reasons for them.
        quiet: show no status and no progress, only warnings and errors.
        plain: use no spinner, no redrawing and no colour, for screen readers and logs.
    """

    def __init__(
        self, environment: Environment, *, verbose: bool = False, quiet: bool = False, plain: bool = False
    ) -> None:
        self.environment = environment
        self.verbose = verbose
        self.quiet = quiet
        self.plain = plain
        self._lock = threading.RLock()
        self._redrawn = False  # a line of `redraw_line` is on stderr
        self._spinning = False  # a spinner is

    @property
    def answer_is_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return _is_terminal(self.environment.stdout)

    @property
    def status_is_terminal(self) -> bool:
        """Whether stderr is a terminal."""
        return _is_terminal(self.environment.stderr)

    @property
    def colour(self) -> bool:
        """Whether the answer may be coloured."""
        return self.answer_is_terminal and self._may_colour

    @property
    def can_redraw(self) -> bool:
        """Whether the cursor may be moved on stdout."""
        return self.answer_is_terminal and self._may_redraw

    @property
    def status_can_redraw(self) -> bool:
        """Whether the cursor may be moved on stderr."""
        return self.status_is_terminal and self._may_redraw

    @property
    def status_is_unicode(self) -> bool:
        """Whether stderr can show more than ASCII, such as bars and spinners."""
        return _is_unicode(self.environment.stderr)

    @property
    def answer_is_unicode(self) -> bool:
        """Whether stdout can show more than ASCII."""
        return _is_unicode(self.environment.stdout)

    @property
    def width(self) -> int:
        """The width of stdout in columns: the terminal's, else `COLUMNS`, else 80."""
        return self._size(self.environment.stdout)[0]

    @property
    def height(self) -> int:
        """The height of the terminal in lines, else `LINES`, else 24."""
        return self._size(self.environment.stdout)[1]

    @property
    def status_width(self) -> int:
        """The width of stderr in columns."""
        return self._size(self.environment.stderr)[0]

    def write(self, text: str) -> None:
        """Write and flush a piece of the answer: sanitized to a terminal, as exact UTF-8 bytes elsewhere."""
        self.draw(sanitize(text) if self.answer_is_terminal else text)

    def heading(self, text: str) -> None:
        """Write a heading of an answer, such as the name of its picture."""
        line = sanitize_line(text) if self.answer_is_terminal else text
        self.draw(_styled(line, _BOLD, self.colour) + "\n")

    def draw(self, text: str) -> None:
        """Write text to stdout that is already safe, including our own control sequences."""
        with self._lock:
            self.clear_redrawn_line()
            try:
                self._write_answer(text)
            except OSError as exc:
                exc.filename = exc.filename or "stdout"
                raise

    def _write_answer(self, text: str) -> None:
        stream = self.environment.stdout
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(text)
            stream.flush()
            return
        if self.answer_is_terminal:
            data = text.encode(stream.encoding or "utf-8", "replace")
        else:
            data = text.encode("utf-8", "surrogateescape")
        stream.flush()
        buffer.write(data)
        buffer.flush()

    def status(self, text: str) -> None:
        """Print a line to stderr, unless quiet."""
        if not self.quiet:
            self._say("", "", text)

    def say(self, text: str) -> None:
        """Print a line to stderr that was asked for, even if quiet."""
        self._say("", "", text)

    def warn(self, text: str) -> None:
        """Print a warning to stderr."""
        self._say("warning: ", _YELLOW, text)

    def error(self, error: DsvlError) -> None:
        """Print an error to stderr, and its hint if it has one."""
        self._say("error: ", _RED, error.message)
        if error.hint:
            self._say("hint: ", _BOLD, error.hint)

    def traceback(self, text: str) -> None:
        """Print a traceback to stderr; unlike a message, it has several lines."""
        with self._lock:
            self.clear_redrawn_line()
            self._write_status(sanitize(text))

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show a spinner on stderr during the work, and remove it afterwards; only on a terminal.

        Meanwhile, messages and progress may be written, but not the answer.
        """
        if self.quiet or not (self.answer_is_terminal and self.status_can_redraw):
            yield
            return
        stopped = threading.Event()
        spinner = threading.Thread(target=self._spin, args=(sanitize_line(text), stopped), daemon=True)
        spinner.start()
        try:
            yield
        finally:
            stopped.set()
            spinner.join()
            self.clear_redrawn_line()

    def renderer(self, width: int | None = None) -> RichConsole:
        """Return a rich console for rendering to stdout; `width` is in columns."""
        from rich.console import Console as RichConsole

        return RichConsole(
            file=self.environment.stdout,
            force_terminal=self.answer_is_terminal,
            no_color=not self.colour,
            width=width or self.width,
            height=self.height,
            markup=False,
            emoji=False,
            highlight=False,
            _environ=self.environment.variables,
        )

    def redraw_line(self, text: str) -> None:
        """Draw the redrawn line on stderr; the next message replaces it. Only for terminals that can redraw."""
        with self._lock:
            self._redrawn = True
            self._write_status(f"{_ERASE_LINE}{_WRAP_OFF}{text}{_WRAP_ON}")

    def clear_redrawn_line(self) -> None:
        """Erase the redrawn line, if there is one."""
        with self._lock:
            if self._redrawn or self._spinning:
                self._redrawn = self._spinning = False
                self._write_status(_ERASE_LINE)

    def _spin(self, label: str, stopped: threading.Event) -> None:
        marks = _SPINNER if self.status_is_unicode else _ASCII_SPINNER
        for mark in itertools.cycle(marks):
            # Waiting first avoids flicker in quick work.
            if stopped.wait(_SPINNER_SECONDS):
                return
            with self._lock:
                if not self._redrawn:
                    self._spinning = True
                    line = _styled(f"{mark} {label}", _DIM, self._may_colour)
                    self._write_status(f"{_ERASE_LINE}{_WRAP_OFF}{line}{_WRAP_ON}")

    @property
    def _term(self) -> str:
        return self.environment.variables.get("TERM", "").lower()

    @property
    def _may_redraw(self) -> bool:
        return not self.plain and self._term not in _DUMB

    @property
    def _may_colour(self) -> bool:
        # https://no-color.org: any non-empty value disables colour.
        return self._may_redraw and not self.environment.variables.get("NO_COLOR")

    def _say(self, prefix: str, style: str, text: str) -> None:
        line = sanitize_line(text)
        if self.status_is_terminal:
            line = _wrap(line, len(prefix), self.status_width)
        label = _styled(prefix.rstrip(), style, self.status_is_terminal and self._may_colour)
        with self._lock:
            self.clear_redrawn_line()
            self._write_status((f"{label} " if prefix else "") + line + "\n")

    def _write_status(self, text: str) -> None:
        stream = self.environment.stderr
        # A message must not end the work, whatever the encoding, and even if the reader is gone.
        encoding = stream.encoding or "utf-8"
        with suppress(OSError):
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()

    def _size(self, stream: TextIO) -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(stream.fileno())
        except (OSError, ValueError):
            columns = lines = 0
        return columns or self._number("COLUMNS") or 80, lines or self._number("LINES") or 24

    def _number(self, variable: str) -> int:
        value = self.environment.variables.get(variable, "")
        return int(value) if value.isascii() and value.isdigit() else 0


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().startswith("utf")


def _styled(text: str, style: str, colour: bool) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if colour and text else text


def _wrap(text: str, indent: int, width: int) -> str:
    """Wrap a line of text between words, indenting the lines after the first to align with it."""
    lines = textwrap.wrap(
        text,
        width=max(width - indent, 20),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return ("\n" + " " * indent).join(lines)

"""Output of the commands: answers to stdout, everything else to stderr.

Text for a terminal is sanitized; an answer for a pipe or a file is written verbatim. rich is imported only to draw
Markdown or pictures on a terminal, so that piped commands start fast.
"""

from __future__ import annotations

import io
import itertools
import os
import stat
import sys
import textwrap
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.sanitize import sanitize, sanitize_line
from dsvl_cli.terminal.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console as RichConsole

_ERASE_BELOW = "\r\x1b[J"
# A redrawn line must stay one line, however wide the terminal renders its characters.
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_SPINNER = "|/-\\"
_SPINNER_SECONDS = 0.1

_BOLD, _DIM, _REVERSE, _RED, _YELLOW = "1", "2", "7", "1;31", "1;33"
_NARROWEST_ALIGNED = 20
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
    def shows_waits(self) -> bool:
        """Whether `working` draws: not while the answer goes into a pipe, whose reader may use the terminal as well."""
        return not self.quiet and self.status_can_redraw and (self.answer_is_terminal or self._answer_is_file)

    @property
    def _answer_is_file(self) -> bool:
        """Whether stdout is a regular file."""
        try:
            return stat.S_ISREG(os.fstat(self.environment.stdout.fileno()).st_mode)
        except (OSError, ValueError):
            return False

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

    @property
    def can_ask(self) -> bool:
        """Whether a question can be shown on a terminal, and answered there."""
        return self.status_is_terminal and _is_terminal(self.environment.stdin)

    def ask(self, question: str) -> bool:
        """Ask on the terminal; return whether the answer is yes. Anything else, or the end of the input, is no."""
        with self._lock:
            self.clear_redrawn_line()
            self._write_status(f"{sanitize_line(question)} [y/N] ")
        answer = self.environment.stdin.readline()
        if not answer.endswith("\n"):
            self._write_status("\n")
        return answer.strip().lower() in ("y", "yes")

    def recall(self, text: str) -> None:
        """Print a line of what was said earlier to stderr, dimmed, unless quiet."""
        if self.quiet:
            return
        line = _styled(sanitize_line(text), _DIM, self.status_is_terminal and self._may_colour)
        with self._lock:
            self.clear_redrawn_line()
            self._write_status(line + "\n")

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
    def working(self, work: str | Wait) -> Iterator[None]:
        """Show a wait with a spinner and a clock on stderr, and remove it afterwards; only on a terminal.

        Meanwhile, messages and progress may be written, but not the answer. Where no line can be redrawn, the state of
        the wait is written once, if it has one.
        """
        wait = Wait(work) if isinstance(work, str) else work
        if not self.shows_waits:
            if wait.state:
                self.enter_state(wait.state)
            yield
            return
        stopped = threading.Event()
        spinner = threading.Thread(target=self._spin, args=(wait, stopped), daemon=True)
        spinner.start()
        try:
            yield
        finally:
            stopped.set()
            spinner.join()
            self.clear_redrawn_line()

    def enter_state(self, state: str) -> None:
        """Write what is done now as a line to stderr, if it is a terminal that cannot redraw one; unless quiet."""
        if self.status_is_terminal and not self._may_redraw:
            self.status(state)

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
            self._write_status(f"{_ERASE_BELOW}{_WRAP_OFF}{text}\r{_WRAP_ON}")

    def clear_redrawn_line(self) -> None:
        """Erase the redrawn line, if there is one."""
        with self._lock:
            if self._redrawn or self._spinning:
                self._redrawn = self._spinning = False
                self._write_status(_ERASE_BELOW)

    def _spin(self, wait: Wait, stopped: threading.Event) -> None:
        began_at = time.monotonic()
        marks = _SPINNER if self.status_is_unicode else _ASCII_SPINNER
        for mark in itertools.cycle(marks):
            # Waiting first avoids flicker in quick work.
            if stopped.wait(_SPINNER_SECONDS):
                return
            with self._lock:
                if not self._redrawn:
                    self._spinning = True
                    self._draw_wait(mark, wait, time.monotonic() - began_at)

    def _draw_wait(self, mark: str, wait: Wait, seconds: float) -> None:
        width = self.status_width
        line = _styled(sanitize_line(f"{mark} {wait.line(seconds, width - 2)}"), _DIM, self._may_colour)
        below = ""
        if wait.below is not None:
            bar = sanitize_line(wait.below(width)).ljust(width - 1)
            below = f"\r\n\x1b[{_REVERSE}m{bar}\x1b[0m\x1b[A"
        # The cursor stays at the beginning: if the window becomes narrower, it is still above all that has to go.
        self._write_status(f"{_ERASE_BELOW}{_WRAP_OFF}{line}{below}\r{_WRAP_ON}")

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
    """Wrap a line of text between words, indenting the lines after the first to align with it if there is room."""
    lines = textwrap.wrap(
        text,
        width=max(width, indent + 1),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent if width - indent >= _NARROWEST_ALIGNED else "",
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return "\n".join(lines)[indent:]

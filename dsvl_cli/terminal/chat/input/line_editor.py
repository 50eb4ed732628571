"""Reads messages from a terminal: the prompt and its toolbar, or a simple echo for terminals that cannot redraw."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.output import ColorDepth, DummyOutput, Output, create_output
from prompt_toolkit.shortcuts import CompleteStyle

from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.chat.input.completion import ChatCompleter
from dsvl_cli.terminal.chat.input.history import open_history
from dsvl_cli.terminal.chat.input.keys import bind_keys
from dsvl_cli.terminal.chat.input.states import StateLines
from dsvl_cli.terminal.chat.input.toolbar import toolbar_text
from dsvl_cli.terminal.sanitize import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.formatted_text import StyleAndTextTuples

    from dsvl_cli.terminal.chat.chat import Chat

PROMPT = "> "
_PLACEHOLDER = "/help, drop a picture, Ctrl-D leaves"
_REDRAW_SECONDS = 0.03
_CLOCK_SECONDS = 1.0  # between the steps of the toolbar's clock
_ESCAPE_SECONDS = 0.1


class LineEditor:
    """Reads messages, and shows those of the loading model while waiting.

    Args:
        chat: the source of completions and of the toolbar.
        history: the history file; None keeps the history in memory.
        source, display: for tests; None for the real terminal.
    """

    def __init__(
        self, chat: Chat, history: Path | None, *, source: Input | None = None, display: Output | None = None
    ) -> None:
        self._chat = chat
        environment = chat.console.environment
        # The prompt goes to a stream that is visible: stderr in `dsvl chat > answers.txt`.
        stream = environment.stdout if chat.console.answer_is_terminal else environment.stderr
        can_redraw = chat.console.can_redraw or (not chat.console.answer_is_terminal and chat.console.status_can_redraw)
        self._echo = None if can_redraw else _Echo(stream)
        self._states = None if can_redraw else StateLines(chat)
        self._display = display or create_output(stdout=stream)
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            history=open_history(history, chat.console),
            completer=ChatCompleter(chat),
            complete_while_typing=Condition(lambda: _is_worth_completing(get_app().current_buffer.text)),
            complete_style=CompleteStyle.COLUMN,
            bottom_toolbar=self._toolbar,
            prompt_continuation=" " * len(PROMPT),
            placeholder=self._placeholder,
            key_bindings=bind_keys(lambda: self._aside(self._paste_picture), self._echo.repeat if self._echo else None),
            search_ignore_case=True,
            enable_suspend=True,
            include_default_pygments_style=False,
            color_depth=None if chat.console.colour else ColorDepth.DEPTH_1_BIT,
            input=source or create_input(environment.stdin),
            output=self._display if can_redraw else DummyOutput(),
        )
        self._session.app.min_redraw_interval = _REDRAW_SECONDS
        # Escape is also the first byte of other keys: how long to wait for the rest of them.
        self._session.app.timeoutlen = self._session.app.ttimeoutlen = _ESCAPE_SECONDS
        self._chat.loading.changed = self._wake
        self._chat.clear_screen = self._clear
        self._chat.status_bar = partial(toolbar_text, chat)

    def read(self) -> str:
        """Return the next message; the line initially contains the chat's draft.

        Raises:
            EOFError: Ctrl-D, or the terminal was closed.
            KeyboardInterrupt: Ctrl-C at an empty prompt.
        """
        draft, self._chat.draft = self._chat.draft, ""
        if self._states is not None:
            self._states.wait()
        self._show_news()
        if self._states is not None:
            self._states.show()
        if self._echo is None:
            self._session.refresh_interval = _CLOCK_SECONDS if self._chat.loading.loading else 0
            return self._session.prompt(default=draft, pre_run=self._refresh)
        with self._echo.line(self._session.default_buffer, draft):
            return self._session.prompt(default=draft, pre_run=self._refresh)

    def _toolbar(self) -> str:
        return toolbar_text(self._chat, self._display.get_size().columns)

    def _placeholder(self) -> StyleAndTextTuples:
        """Return what an empty line shows; nothing where it does not fit, or could be taken for typed text."""
        fits = self._display.get_size().columns > len(PROMPT) + len(_PLACEHOLDER)
        if not fits or not self._chat.console.colour or get_app().is_done:
            return []
        return [("fg:ansibrightblack", _PLACEHOLDER)]

    def _wake(self) -> None:
        """Check for news from the loading thread; callable from any thread."""
        loop = self._session.app.loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._refresh)
            except RuntimeError:  # the prompt has just ended; the next one checks again
                return

    def _refresh(self) -> None:
        if self._echo is not None:
            return  # the next prompt shows it: writing this one again would be read out again
        if self._chat.loading.has_news:
            self._aside(self._show_news)
        else:
            self._session.app.invalidate()

    def _show_news(self) -> None:
        self._chat.loading.deliver()
        error = self._chat.loading.take_error()
        if error is not None:
            self._chat.console.error(error)
        if not self._chat.is_measured:
            self._chat.measure()

    def _paste_picture(self) -> None:
        try:
            self._chat.attach([self._chat.services.sources.paste()])
        except DsvlError as exc:
            self._chat.console.error(exc)
        self._chat.measure()

    def _aside(self, show: Callable[[], None]) -> None:
        """Show something while a line is being edited.

        Not with prompt-toolkit's `run_in_terminal`, during which the terminal itself echoes what is typed and turns
        Enter into Ctrl-J.
        """
        if self._echo is not None:
            self._echo.aside(show)
            return
        app = self._session.app
        app.renderer.erase()
        show()
        app.renderer.reset()
        app.renderer.request_absolute_cursor_position()
        app.invalidate()

    def _clear(self) -> None:
        if self._echo is None:
            self._display.erase_screen()
            self._display.cursor_goto(0, 0)
            self._display.flush()


def _is_worth_completing(text: str) -> bool:
    return text.startswith("/") or "@" in text


class _Echo:
    """The line on a terminal that cannot redraw: added text is echoed; after any other change it is written again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = ""

    def line(self, buffer: Buffer, draft: str) -> _EchoedLine:
        """Echo a buffer for one line that starts with the draft."""
        self._shown = draft
        self._write(PROMPT + draft)
        return _EchoedLine(self, buffer)

    def follow(self, buffer: Buffer) -> None:
        """Show the changes in the buffer."""
        if buffer.text.startswith(self._shown):
            self._write(buffer.text[len(self._shown) :])
        else:
            self._write(f"\n{PROMPT}{buffer.text}")
        self._shown = buffer.text

    def aside(self, show: Callable[[], None]) -> None:
        """Show something on separate lines, then the line again."""
        self._write("\n")
        show()
        self._write(PROMPT + self._shown)

    def repeat(self) -> None:
        """Write the line again: other programs have written to the terminal."""
        self._write(PROMPT + self._shown)

    def end(self) -> None:
        """End the line."""
        self._write("\n")

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(sanitize(text).encode(encoding, "backslashreplace").decode(encoding))
        self._stream.flush()


class _EchoedLine:
    def __init__(self, echo: _Echo, buffer: Buffer) -> None:
        self._echo = echo
        self._buffer = buffer

    def __enter__(self) -> None:
        self._buffer.on_text_changed += self._echo.follow

    def __exit__(self, *_: object) -> None:
        self._buffer.on_text_changed -= self._echo.follow
        self._echo.end()

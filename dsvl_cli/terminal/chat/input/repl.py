"""The loop of a chat: a line, what it asks for, the next line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dsvl_cli.errors import DsvlError, ExitStatus, SomeFailed
from dsvl_cli.terminal.chat.input.blocks import block_content
from dsvl_cli.terminal.chat.input.tty import SilentKeys
from dsvl_cli.terminal.chat.slash.registry import run_command, split_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dsvl_cli.terminal.chat.chat import Chat


class Lines(Protocol):
    """Where messages come from."""

    def read(self) -> str:
        """Return the next one; raises EOFError at the end, KeyboardInterrupt at Ctrl-C."""
        ...


class Repl:
    """Reads lines and does what they say, until there are no more.

    Args:
        chat: what the lines act on.
        lines: a terminal's line editor, or a script.
    """

    def __init__(self, chat: Chat, lines: Lines) -> None:
        self._chat = chat
        self._lines = lines
        self._failed = False

    def run(self, images: Sequence[str] = ()) -> ExitStatus:
        """Run to the end: OK, or for a script ERROR where a line failed.

        Args:
            images: paths, addresses and globs to stage first.

        Raises:
            KeyboardInterrupt: Ctrl-C in a script.
        """
        try:
            if self._chat.scripted:
                self._run(images)
            else:
                with SilentKeys(self._chat.console.environment.stdin) as keys, self._chat.ctrl_c:
                    self._chat.lend_terminal = keys.lifted
                    self._run(images)
        finally:
            self._chat.save_at_last()
        if self._chat.is_kept:
            self._chat.advise("kept; dsvl chat --continue goes on")
        return ExitStatus.ERROR if self._failed and self._chat.scripted else ExitStatus.OK

    def take(self, line: str) -> None:
        """Do what one line says; an error is told, and the chat goes on."""
        self._attempt(lambda: self._do(line))
        self._chat.ctrl_c.forget()  # pressed when there was nothing left to stop

    def _run(self, images: Sequence[str]) -> None:
        if images:
            self._attempt(lambda: self._chat.add_images(images))
        self._loop()

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DsvlError as exc:
            self._failed = True
            if not isinstance(exc, SomeFailed):
                self._chat.console.error(exc)
        except KeyboardInterrupt:
            if self._chat.scripted:
                raise
            self._chat.tell("stopped; the message is back in the line" if self._chat.draft else "stopped")
        self._chat.measure()

    def _loop(self) -> None:
        about_to_leave = False
        while not self._chat.leaving:
            try:
                with self._chat.ctrl_c.listening():
                    pass  # pressed between two prompts, it counts for the second
                line = self._lines.read()
            except EOFError:
                return
            except KeyboardInterrupt:
                if self._chat.scripted:
                    raise
                if about_to_leave:
                    return
                about_to_leave = True
                self._chat.tell("Ctrl-C again, or Ctrl-D, leaves")
                continue
            about_to_leave = False
            self.take(line)

    def _do(self, line: str) -> None:
        command = split_command(line)
        if command is not None:
            run_command(self._chat, *command)
            return
        message = block_content(line).strip()
        if message:
            self._chat.send(message)

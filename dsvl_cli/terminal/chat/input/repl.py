"""The read-eval-print loop of a chat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dsvl_cli.errors import DsvlError, ExitStatus, SomeFailed, is_out_of_memory
from dsvl_cli.terminal.chat.input.blocks import block_content
from dsvl_cli.terminal.chat.input.tty import SilentTty
from dsvl_cli.terminal.chat.slash.registry import run_command, split_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dsvl_cli.terminal.chat.chat import Chat


class Lines(Protocol):
    """A source of messages."""

    def read(self) -> str:
        """Return the next message; raises EOFError at the end, KeyboardInterrupt on Ctrl-C."""
        ...


class Repl:
    """Reads and executes lines until there are no more.

    Args:
        chat: what the lines act on.
        lines: a terminal's line editor, or a script.
    """

    def __init__(self, chat: Chat, lines: Lines) -> None:
        self._chat = chat
        self._lines = lines
        self._failed = False

    def run(self, images: Sequence[str] = (), question: str | None = None) -> ExitStatus:
        """Run to the end; return ERROR if a line of a script failed, else OK.

        Args:
            images: paths, URLs and globs of pictures to attach first. If one fails, a script ends: its questions are
                about it.
            question: sent first; if a picture fails, the draft instead.

        Raises:
            KeyboardInterrupt: Ctrl-C in a script.
        """
        try:
            if self._chat.scripted:
                self._run(images, question)
            else:
                with SilentTty(self._chat.console.environment.stdin) as tty, self._chat.ctrl_c:
                    self._chat.lend_terminal = tty.lifted
                    self._run(images, question)
        finally:
            self._chat.save_at_last()
        if self._chat.is_kept:
            self._chat.advise("saved; continue it with dsvl chat --continue")
        return ExitStatus.ERROR if self._failed and self._chat.scripted else ExitStatus.OK

    def take(self, line: str) -> None:
        """Execute one line, reporting any error."""
        self._attempt(lambda: self._do(line))
        self._chat.ctrl_c.forget()  # pressed when there was nothing to stop any more

    def _run(self, images: Sequence[str], question: str | None) -> None:
        question = (question or "").strip()
        if images and not self._attempt(lambda: self._chat.add_images(images)):
            if self._chat.scripted:
                return
            self._chat.draft = question
        elif question:
            self._chat.advise(f"> {question}")
            self._attempt(lambda: self._chat.send(question))
        self._loop()

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Do something, reporting any error; return whether there was none."""
        is_done = False
        try:
            action()
            is_done = True
        except DsvlError as exc:
            self._failed = True
            if not isinstance(exc, SomeFailed):
                self._chat.console.error(exc)
        except KeyboardInterrupt:
            if self._chat.scripted:
                raise
            self._chat.tell("stopped; the message is in the input line again" if self._chat.draft else "stopped")
        except Exception as exc:
            # A bug or a lack of memory must not end a conversation; a terminal that is gone must.
            if self._chat.scripted or isinstance(exc, OSError):
                raise
            self._chat.console.error(_explain(exc))
        self._chat.measure()
        return is_done

    def _loop(self) -> None:
        about_to_leave = False
        while not self._chat.leaving:
            try:
                with self._chat.ctrl_c.listening():
                    pass  # if pressed between two prompts, it counts for the second
                line = self._lines.read()
            except EOFError:
                return
            except KeyboardInterrupt:
                if self._chat.scripted:
                    raise
                if about_to_leave:
                    return
                about_to_leave = True
                self._chat.tell("press Ctrl-C again or Ctrl-D to exit")
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


def _explain(exc: Exception) -> DsvlError:
    if is_out_of_memory(exc):
        return DsvlError("out of memory", "free some with /drop N or /new")
    return DsvlError(
        f"this is a bug in dsvl: {type(exc).__name__}: {exc}", "the conversation goes on; please report it"
    )

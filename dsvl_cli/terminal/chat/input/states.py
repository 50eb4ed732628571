"""What a toolbar would show, as lines for a terminal that cannot redraw one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsvl_cli.terminal.chat.input.toolbar import context_text

if TYPE_CHECKING:
    from dsvl_cli.terminal.chat.chat import Chat


class StateLines:
    """Writes a line for each state of the model, and the context's figures after each answer.

    Args:
        chat: whose states they are.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._used = chat.loading.used
        self._stats = chat.stats

    def wait(self) -> None:
        """Wait until no model is being loaded, so that nothing is written over a prompt; Ctrl-C stops waiting."""
        chat, loading = self._chat, self._chat.loading
        if loading.loading:
            chat.console.enter_state(f"loading {loading.name}")
        try:
            chat.follow_loading()
        except KeyboardInterrupt:
            chat.tell(f"{loading.name} is still loading; the next message waits for it")

    def show(self) -> None:
        """Write what has changed since the last prompt."""
        chat = self._chat
        if chat.loading.ready is not None and chat.loading.used != self._used:
            self._used = chat.loading.used
            chat.console.enter_state("ready")
        if chat.stats is not self._stats:
            self._stats = chat.stats
            for text in context_text(chat) if chat.stats is not None else ():
                chat.console.enter_state(text)

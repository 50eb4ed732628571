"""The chat's key bindings, besides those of prompt-toolkit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from dsvl_cli.terminal.chat.input.blocks import is_open_block

if TYPE_CHECKING:
    from collections.abc import Callable


def bind_keys(paste_picture: Callable[[], None]) -> KeyBindings:
    """Return the key bindings; `paste_picture` attaches the picture on the clipboard and reports the result."""
    keys = KeyBindings()
    # During a history search, Enter and Ctrl-C belong to the search.
    editing = has_focus(DEFAULT_BUFFER)

    @keys.add("enter", filter=editing)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open_block(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=editing)
    @keys.add("c-j", filter=editing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c", filter=editing)
    @keys.add("<sigint>", filter=editing)
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    @keys.add("c-v", filter=editing)
    def _(_: KeyPressEvent) -> None:
        paste_picture()

    return keys

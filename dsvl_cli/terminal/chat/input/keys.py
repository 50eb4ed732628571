"""The chat's key bindings, besides those of prompt-toolkit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import completion_is_selected, has_completions, has_focus
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from dsvl_cli.terminal.chat.input.blocks import is_open_block

if TYPE_CHECKING:
    from collections.abc import Callable

_SEPARATORS = ("/", os.sep)


def bind_keys(paste_picture: Callable[[], None], repeat_line: Callable[[], None] | None = None) -> KeyBindings:
    """Return the key bindings.

    Args:
        paste_picture: attaches the picture on the clipboard and reports the result.
        repeat_line: writes the prompt again after Ctrl-Z and `fg`; None if prompt-toolkit draws it.
    """
    keys = KeyBindings()
    # During a history search, Enter and Ctrl-C belong to the search.
    editing = has_focus(DEFAULT_BUFFER)
    requested = CompleteEvent(completion_requested=True)

    @keys.add("enter", filter=editing)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open_block(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("enter", filter=editing & completion_is_selected)
    def _(event: KeyPressEvent) -> None:
        # Its text is in the line already.
        event.current_buffer.complete_state = None

    @keys.add("escape", filter=editing & has_completions)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.cancel_completion()

    @keys.add("tab", filter=editing)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        state = buffer.complete_state
        selected = state.current_completion if state is not None else None
        if state is not None and len(state.completions) == 1 and selected is None:
            buffer.complete_next()
            selected = state.completions[0]
            buffer.complete_state = None  # taken: Enter sends
            if not selected.text.endswith(_SEPARATORS):
                return
        if selected is not None and selected.text.endswith(_SEPARATORS):
            # A folder was chosen: what is in it comes next.
            buffer.complete_state = None
            buffer.start_completion(complete_event=requested)
        elif state is not None and state.completions:
            buffer.complete_next()
        else:
            buffer.complete_state = None
            buffer.start_completion(insert_common_part=True, complete_event=requested)

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

    if repeat_line is not None:

        @keys.add("c-z")
        def _(event: KeyPressEvent) -> None:
            event.app.suspend_to_background()
            run_in_terminal(repeat_line)  # once the process has been resumed

    return keys

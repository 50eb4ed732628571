"""The toolbar below the prompt: model, context, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsvl_cli.terminal.chat.settings import changed_settings
from dsvl_cli.terminal.sanitize import sanitize_line
from dsvl_cli.terminal.waiting import clock_time

if TYPE_CHECKING:
    from dsvl_cli.terminal.chat.chat import Chat

_SEPARATOR = " | "


def toolbar_text(chat: Chat, width: int) -> str:
    """Return what fits into `width` columns, the most important first."""
    pieces = [_model(chat), *context_text(chat), *_attached(chat)]
    pieces += [f"{name} {value}" for name, value in changed_settings(chat.settings)]
    line = sanitize_line(pieces[0])[: max(width - 1, 0)]
    for piece in map(sanitize_line, pieces[1:]):
        if len(line) + len(_SEPARATOR) + len(piece) < width:
            line += _SEPARATOR + piece
    return line


def _model(chat: Chat) -> str:
    loading = chat.loading
    if not loading.loading:
        return chat.model_name if loading.ready is not None else "no model: /model NAME"
    clock = f", {clock_time(loading.seconds)}" if loading.seconds >= 1 else ""
    if loading.progress is None:
        return f"loading {loading.name}{clock or ' ...'}"
    what, done, total = loading.progress
    return f"loading {loading.name}: {100 * done // max(total, 1)}% of {what}{clock}"


def context_text(chat: Chat) -> list[str]:
    """Return how much of the context is used, if that is known."""
    model = chat.loading.ready
    if model is None or chat.context.used_tokens is None:
        return []
    free = max(model.context_length - chat.context.used_tokens, 0)
    return [f"{chat.context.used_tokens:,} tokens used, {free:,} free"]


def _attached(chat: Chat) -> list[str]:
    count = len(chat.dialogue.attached)
    return [f"{count} {'picture' if count == 1 else 'pictures'} attached"] if count else []

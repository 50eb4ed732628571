"""The toolbar below the prompt: model, context, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsvl_cli.terminal.chat.settings import changed_settings
from dsvl_cli.terminal.sanitize import sanitize_line

if TYPE_CHECKING:
    from dsvl_cli.terminal.chat.chat import Chat

_SEPARATOR = " | "


def toolbar_text(chat: Chat, width: int) -> str:
    """Return what fits into `width` columns, the most important first."""
    pieces = [_model(chat), *_context(chat), *_attached(chat)]
    pieces += [f"{name} {value}" for name, value in changed_settings(chat.settings)]
    line = sanitize_line(pieces[0])[: max(width - 1, 0)]
    for piece in map(sanitize_line, pieces[1:]):
        if len(line) + len(_SEPARATOR) + len(piece) < width:
            line += _SEPARATOR + piece
    return line


def _model(chat: Chat) -> str:
    if chat.loading.ready is not None:
        return chat.model_name
    if not chat.loading.loading:
        return "no model: /model NAME"
    if chat.loading.progress is None:
        return f"loading {chat.loading.name} ..."
    what, done, total = chat.loading.progress
    return f"loading {chat.loading.name}: {100 * done // max(total, 1)}% of {what}"


def _context(chat: Chat) -> list[str]:
    model = chat.loading.ready
    if model is None or chat.used_tokens is None:
        return []
    free = max(model.context_length - chat.used_tokens, 0)
    return [f"{chat.used_tokens:,} tokens used, {free:,} free"]


def _attached(chat: Chat) -> list[str]:
    count = len(chat.dialogue.attached)
    return [f"{count} {'picture' if count == 1 else 'pictures'} attached"] if count else []

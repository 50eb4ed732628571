"""Completion: commands and their arguments, paths of pictures after an `@`, and of any word with Tab."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion

from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.slash.registry import COMMANDS, find_command
from dsvl_cli.terminal.sanitize import sanitize_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prompt_toolkit.document import Document

    from dsvl_cli.terminal.chat.chat import Chat

_AT_PATH = re.compile(r"(?:^|\s)@((?:\\.|[^\s\\])*)$")
_LAST_WORD = re.compile(r"((?:\\.|[^\s\\])*)$")
_ESCAPED = re.compile(r"([\s\\'\"])")
_MOST = 500


class ChatCompleter(Completer):
    """Completes commands, their arguments and paths."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield completions for the text before the cursor."""
        text = document.text_before_cursor
        if match := _AT_PATH.search(text):
            yield from complete_path(match[1], self._chat.services.sources.extensions)
        elif text.startswith("/"):
            yield from self._complete_command(text)
        elif complete_event.completion_requested and (match := _LAST_WORD.search(text)) and match[1]:
            yield from complete_path(match[1], self._chat.services.sources.extensions)

    def _complete_command(self, text: str) -> Iterator[Completion]:
        name, space, typed = text[1:].partition(" ")
        if not space:
            for command in COMMANDS:
                if command.name.startswith(name):
                    yield Completion(command.name, -len(name), display=command.usage, display_meta=command.help)
            return
        try:
            command = find_command(name)
        except UsageError:
            return
        word = typed.rpartition(" ")[2]
        for offer in command.complete(self._chat, typed):
            if offer.startswith(word):
                yield Completion(offer, -len(word), display=sanitize_line(offer))
        if "PATH" in command.arguments:
            extensions = self._chat.services.sources.extensions if command.name == "image" else None
            last = _LAST_WORD.search(typed)
            yield from complete_path(last[1] if last else "", extensions)


def complete_path(typed: str, extensions: frozenset[str] | None) -> Iterator[Completion]:
    """Yield folders and files that start with `typed`, limited to files with one of the extensions if given."""
    plain = re.sub(r"\\(.)", r"\1", typed)
    folder, begin = os.path.split(plain)
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            fitting = sorted(
                (entry.name + os.sep if entry.is_dir() else entry.name)
                for entry in entries
                if entry.name.startswith(begin)
                and (begin or not entry.name.startswith("."))
                and _fits(entry, extensions)
            )
    except OSError:
        return
    written = len(typed) - len(_escape(begin)) if typed.endswith(_escape(begin)) else len(typed) - len(begin)
    for name in fitting[:_MOST]:
        yield Completion(_escape(name), written - len(typed), display=sanitize_line(name))


def _fits(entry: os.DirEntry[str], extensions: frozenset[str] | None) -> bool:
    return extensions is None or entry.is_dir() or os.path.splitext(entry.name)[1].lower() in extensions


def _escape(name: str) -> str:
    r"""Escape spaces and quotes as shells do; not on Windows, where the backslash is the path separator."""
    return name if os.name == "nt" else _ESCAPED.sub(r"\\\1", name)

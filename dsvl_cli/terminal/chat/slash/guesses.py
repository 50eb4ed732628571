"""What is meant by commands of other chats, and by misspelled ones."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

# Words that people know from other chats, and what they do here.
_MEANT = {
    "image": ("add", "attach", "file", "open", "picture", "upload", "img", "photo", "url"),
    "images": ("files", "list", "ls", "pictures"),
    "drop": ("delete", "remove", "rm", "detach", "forget"),
    "see": ("preview", "show", "view"),
    "paste": ("clip", "clipboard"),
    "copy": ("yank",),
    "retry": ("again", "redo", "regen", "regenerate", "repeat"),
    "undo": ("back", "pop", "rewind"),
    "continue": ("go", "more", "resume"),
    "set": ("config", "options", "param", "parameter", "params", "settings"),
    "system": ("persona", "prompt", "role"),
    "model": ("models", "switch"),
    "stats": ("context", "cost", "info", "status", "tokens", "usage"),
    "new": ("reset", "restart", "start"),
    "save": ("name", "rename"),
    "load": ("chats", "history", "session", "sessions"),
    "export": ("write", "download"),
    "clear": ("cls",),
    "help": ("commands", "h", "man", "usage"),
    "text": ("literal", "raw", "say", "send"),
}
_SIMILAR = 0.75  # `/quti` is /quit, but `/foo` is not /info
COMMANDS_OF = {word: name for name, words in _MEANT.items() for word in words}
_SHORT_SETTINGS = {"temp": "temperature", "max_tokens": "max_new_tokens", "tokens": "max_new_tokens"}


def guess_command(name: str, known: Iterable[str]) -> str | None:
    """Return what to type instead of an unknown command, or None if nothing is similar."""
    names = {name: f"/{name}" for name in known}
    settings = {setting.name: f"/set {setting.name}" for setting in SETTINGS}
    shorts = {short: settings[name] for short, name in _SHORT_SETTINGS.items()}
    meant = {word: f"/{name}" for word, name in COMMANDS_OF.items() if name in names}
    # The surest first: a word that means just one thing here, then the spelling of each.
    certain = {**settings, **shorts, **meant}
    wanted = name.lower().replace("-", "_")
    if wanted in certain:
        return certain[wanted]
    begun = [word for word in (*names, *settings) if len(wanted) > 2 and word.startswith(wanted)]
    if len(begun) == 1:
        return {**settings, **names}[begun[0]]
    every = {**certain, **names}
    near = difflib.get_close_matches(wanted, every, n=1, cutoff=_SIMILAR)
    return every[near[0]] if near else None


def unknown_command(name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a command that does not exist."""
    guess = guess_command(name, known)
    return UsageError(f"there is no command /{name}", f"did you mean {guess}?" if guess else "/help lists all commands")

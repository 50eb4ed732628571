"""The question before something is removed for good."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from dsvl_cli.terminal.console import Console


def confirm_removal(console: Console, what: str, items: Iterable[str]) -> bool:
    """List what would be removed, ask, and return whether the answer is yes.

    Args:
        console: where to ask.
        what: a name for all of it, such as `it`.
        items: a line for each.

    Raises:
        UsageError: there is no terminal to ask on.
    """
    if not console.can_ask:
        raise UsageError("there is no terminal to ask whether to remove for good", "add --yes to remove without asking")
    for item in items:
        console.say(item)
    return console.ask(f"remove {what} for good?")

"""The input history, in a file that only its owner can read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

if TYPE_CHECKING:
    from pathlib import Path

    from dsvl_cli.terminal.console import Console


class PrivateHistory(FileHistory):
    """A history file with mode 0600. If the disk is full, only the entry is lost.

    Raises:
        OSError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        # FileHistory would use the umask.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
        if os.name == "posix":
            path.chmod(0o600)
        super().__init__(path)

    def store_string(self, string: str) -> None:
        """Append an entry, ignoring errors."""
        try:
            super().store_string(string)
        except OSError:
            return


def open_history(path: Path | None, console: Console) -> History:
    """Open the history file; without a path, or if it cannot be created, keep the history in memory."""
    if path is None:
        return InMemoryHistory()
    try:
        return PrivateHistory(path)
    except OSError as exc:
        console.warn(f"the history file {path} cannot be used: {exc.strerror or exc}")
        return InMemoryHistory()

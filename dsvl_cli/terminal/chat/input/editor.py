"""Opens a text in the user's editor."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.engine.encodings import read_text
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.editor import run_editor

if TYPE_CHECKING:
    from collections.abc import Mapping


def edit_text(text: str, variables: Mapping[str, str]) -> str:
    """Edit a text in `$VISUAL`, `$EDITOR` or the system's basic editor, and return what was saved.

    Raises:
        DsvlError: the editor cannot be started or failed.
    """
    # A private folder (0700): an editor's backup files are deleted with it.
    with tempfile.TemporaryDirectory(prefix="dsvl-") as folder:
        path = Path(folder, "message.md")
        path.write_text(text, encoding="utf-8")
        try:
            run_editor(path, variables)
            return read_text(path)
        except DsvlError as exc:
            raise DsvlError(f"{exc.message}; nothing was sent", exc.hint) from exc
        except (OSError, ValueError) as exc:
            raise DsvlError(f"what the editor left cannot be read: {exc}", "nothing was sent") from exc

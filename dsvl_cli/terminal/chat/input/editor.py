"""Opens a text in the user's editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from collections.abc import Mapping


def edit_text(text: str, variables: Mapping[str, str]) -> str:
    """Edit a text in `$VISUAL`, `$EDITOR` or the system's basic editor, and return what was saved.

    Raises:
        DsvlError: the editor cannot be started or failed.
    """
    command = variables.get("VISUAL") or variables.get("EDITOR") or ("notepad" if os.name == "nt" else "vi")
    # A private folder (0700): an editor's backup files are deleted with it.
    with tempfile.TemporaryDirectory(prefix="dsvl-") as folder:
        path = Path(folder, "message.md")
        path.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(command, posix=os.name != "nt"), str(path)], check=True, env=dict(variables))
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as exc:
            raise DsvlError(f"the editor {command} cannot be used: {exc}", "set EDITOR to another editor") from exc
        except subprocess.CalledProcessError as exc:
            raise DsvlError(f"{command} exited with status {exc.returncode}; nothing was sent") from exc

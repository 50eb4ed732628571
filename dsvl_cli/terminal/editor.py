"""Starts the user's editor."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BASIC = ("notepad",) if os.name == "nt" else ("vi", "nano")  # vi: what POSIX has


def run_editor(path: Path, variables: Mapping[str, str]) -> None:
    """Open a file in `$VISUAL`, `$EDITOR` or the system's basic editor, and wait until it is closed.

    Raises:
        DsvlError: there is no editor, or it cannot be started or failed.
    """
    basic = (name for name in _BASIC if shutil.which(name, path=variables.get("PATH")))
    command = variables.get("VISUAL") or variables.get("EDITOR") or next(basic, None)
    if command is None:
        raise DsvlError("there is no editor", f"set EDITOR to the command of yours; the file is {path}")
    try:
        subprocess.run([*shlex.split(command, posix=os.name != "nt"), str(path)], check=True, env=dict(variables))
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise DsvlError(f"the editor {command} cannot be used: {reason}", "set EDITOR to another editor") from exc
    except subprocess.CalledProcessError as exc:
        raise DsvlError(f"the editor {command} exited with status {exc.returncode}") from exc

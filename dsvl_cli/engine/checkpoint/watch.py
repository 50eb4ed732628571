"""Notices between two answers that a file of a loaded checkpoint was changed in place.

The weights are memory-mapped: what is written over them is what the model computes with, and what is cut off ends the
process with a bus error. A file that is replaced by another of its name (as downloads, editors and `dsvl quantize` do)
is not changed: the old one stays until it is no longer mapped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dsvl_cli.errors import DsvlError

_State = tuple[int, int, int, int]


class Watch:
    """The state of files when it was made.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._states = {path: _state(path) for path in paths}

    def check(self) -> None:
        """Compare the files with what they were.

        Raises:
            DsvlError: one was changed in place.
        """
        for path, before in self._states.items():
            now = _state(path)
            if before is not None and now is not None and now[:2] == before[:2] and now != before:
                raise DsvlError(
                    f"{path} was changed while it was in use", "the answers would be wrong: load the model again"
                )


def _state(path: Path) -> _State | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

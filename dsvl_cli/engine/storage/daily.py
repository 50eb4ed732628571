"""Notes that are shown once a day: the cache folder keeps when each was last shown."""

from __future__ import annotations

import contextlib
import datetime

from dsvl_cli.engine.storage.cache_folder import cache_folder
from dsvl_cli.engine.storage.files import new_file
from dsvl_cli.engine.storage.private import find_intruder, make_private_folder
from dsvl_cli.errors import DsvlError


def is_due(name: str) -> bool:
    """Return whether a note was not shown today yet; from now on it was."""
    today = datetime.date.today().isoformat()
    with contextlib.suppress(OSError, ValueError, DsvlError):  # without a cache folder it is shown each time
        path = cache_folder() / "shown" / f"{name}.txt"
        if path.is_file() and path.read_text("ascii") == today:
            return False
        if find_intruder(path.parent) is None:
            make_private_folder(path.parent)
            with new_file(path, 0o600) as file:
                file.write(today.encode())
    return True

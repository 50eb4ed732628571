"""Error messages for failed writes of a batch."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsvl_cli.errors import DsvlError


@contextmanager
def explained(path: str | Path, verb: str = "written") -> Iterator[None]:
    """Turn errors while writing into a DsvlError for the user."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise DsvlError(
            f"{path} cannot be {verb}: {_reason(exc)}",
            "finished rows are kept; fix the problem, then run the same command again to resume",
        ) from exc


def _reason(error: OSError) -> str:
    return "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)

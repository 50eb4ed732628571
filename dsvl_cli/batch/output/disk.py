"""Error messages for failed writes of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsvl_cli.errors import DsvlError


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn errors while writing into a DsvlError for the user."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise DsvlError(
            f"{path} cannot be written: {exc.strerror or exc}",
            "finished rows are kept; fix the problem, then run the same command again to resume",
        ) from exc

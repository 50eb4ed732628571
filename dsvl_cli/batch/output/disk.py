"""What is told when something that a batch writes cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsvl_cli.errors import DsvlError


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Tell a failure of writing as the user should hear it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise DsvlError(
            f"{path}: cannot be written: {exc.strerror or exc}",
            "what was finished is kept; when this is mended, the same command goes on from there",
        ) from exc

from __future__ import annotations

import pytest

from dsvl_cli.engine.units import format_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_950, "100 kB"), (999_500, "1.0 MB"), (14.7e9, "14.7 GB")],
)
def test_format_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text

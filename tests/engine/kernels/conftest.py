"""Kernels are tested with their work split among threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    import torch  # not above: the quick tier reads this file, too

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)

"""The tensors of a checkpoint, read one by one under their names of today."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from safetensors import safe_open

from dsvl_cli.engine.checkpoint.find import Checkpoint, list_weights
from dsvl_cli.engine.checkpoint.layouts import canonical_name
from dsvl_cli.errors import DsvlError


class StoredTensors(Mapping[str, torch.Tensor]):
    """A checkpoint's tensors by the names that today's transformers has for them; use it in a `with` statement.

    The files are mapped into memory: a tensor takes none of its own until it is changed.

    Args:
        checkpoint: the files.
        rename: gives today's name of a stored one.

    Attributes:
        metadata: of all files together.
    """

    def __init__(self, checkpoint: Checkpoint, rename: Callable[[str], str] = canonical_name) -> None:
        self.metadata: dict[str, str] = {}
        self._checkpoint = checkpoint
        self._rename = rename
        self._places: dict[str, tuple[Any, str]] = {}
        self._files = ExitStack()

    def __enter__(self) -> StoredTensors:
        for path in list_weights(self._checkpoint.path):
            file = self._files.enter_context(safe_open(path, framework="pt"))
            self.metadata.update(file.metadata() or {})
            self._places.update({self._rename(stored): (file, stored) for stored in file.keys()})  # noqa: SIM118
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._places:
            raise DsvlError(f"{self._checkpoint.name} has no {name}", "download it again")
        file, stored = self._places[name]
        tensor: torch.Tensor = file.get_tensor(stored)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

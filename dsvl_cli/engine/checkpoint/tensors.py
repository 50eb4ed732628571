"""The tensors of a checkpoint, read one by one by their current names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dsvl_cli.engine.checkpoint.find import Checkpoint, list_weights
from dsvl_cli.engine.checkpoint.layouts import canonical_name
from dsvl_cli.errors import DsvlError


class StoredTensors(Mapping[str, torch.Tensor]):
    """A checkpoint's tensors by their names in current transformers; use it in a `with` statement.

    The files are memory-mapped: a tensor uses no additional memory until it is modified.

    Args:
        checkpoint: the files.
        rename: maps a stored name to the current one.

    Attributes:
        metadata: merged from all files.
    """

    def __init__(self, checkpoint: Checkpoint, rename: Callable[[str], str] = canonical_name) -> None:
        self.metadata: dict[str, str] = {}
        self._checkpoint = checkpoint
        self._rename = rename
        self._locations: dict[str, tuple[Any, str]] = {}
        self._files = ExitStack()

    def __enter__(self) -> StoredTensors:
        for path in list_weights(self._checkpoint.path):
            try:
                file = self._files.enter_context(safe_open(path, framework="pt"))
            except SafetensorError as exc:
                self._files.close()
                raise DsvlError(f"{path} is not a safetensors file", "it is damaged: download it again") from exc
            self.metadata.update(file.metadata() or {})
            self._locations.update({self._rename(stored): (file, stored) for stored in file.keys()})  # noqa: SIM118
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._locations:
            raise DsvlError(f"{self._checkpoint.name} has no {name}", "download it again")
        file, stored = self._locations[name]
        tensor: torch.Tensor = file.get_tensor(stored)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._locations

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)

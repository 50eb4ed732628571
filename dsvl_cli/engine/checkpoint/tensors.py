"""The tensors of a checkpoint that is not quantized, read one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from safetensors import safe_open

from dsvl_cli.engine.checkpoint.find import Checkpoint, list_weights
from dsvl_cli.errors import DsvlError


class StoredTensors:
    """A checkpoint's tensors by the names that transformers' module has for them; use it in a `with` statement.

    The files are mapped into memory: a tensor takes none of its own until it is changed.

    Args:
        checkpoint: the files.
        skeleton: its module, with or without weights.

    Attributes:
        names: of the module's whole state, in its order.
        tied: those among them whose weights are another one's and are not stored.
        total_bytes: of all that `items` gives.

    Raises:
        DsvlError: on entering, when a tensor is missing.
    """

    def __init__(self, checkpoint: Checkpoint, skeleton: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping

        self.names: list[str] = list(skeleton.state_dict())
        self.tied = set(getattr(skeleton, "all_tied_weights_keys", {}))
        self.total_bytes = checkpoint.weight_bytes
        self._checkpoint = checkpoint
        # Older versions of transformers wrote some names otherwise, and loading renames them.
        self._renamings: list[Any] = get_model_conversion_mapping(skeleton, add_legacy=False)
        self._places: dict[str, tuple[Any, str]] = {}
        self._files = ExitStack()

    def __enter__(self) -> StoredTensors:
        for path in list_weights(self._checkpoint.path):
            file = self._files.enter_context(safe_open(path, framework="pt"))
            for key in file.keys():  # noqa: SIM118 (no mapping)
                self._places[self._rename(key)] = (file, key)
        missing = [name for name in self.names if name not in self.tied and name not in self._places]
        if missing:
            raise DsvlError(f"{self._checkpoint.name} has no {missing[0]}", "download it again")
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def _rename(self, key: str) -> str:
        for renaming in self._renamings:
            key, _ = renaming.rename_source_key(key)
        return key

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Give each tensor that is stored, in the module's order."""
        for name in self.names:
            if name not in self.tied:
                file, key = self._places[name]
                yield name, file.get_tensor(key)

"""The weights that a checkpoint is quantized from, under the names and in the order of transformers' module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.checkpoint.layouts import POOLING_HEAD, canonical_name
from dsvl_cli.engine.checkpoint.tensors import StoredTensors
from dsvl_cli.errors import DsvlError


class SourceWeights:
    """A checkpoint's weights by the names of its module; use it in a `with` statement.

    Args:
        checkpoint: the files, not quantized.
        skeleton: its module, with or without weights.

    Attributes:
        names: of the module's whole state, in its order.
        tied: those among them that are another one's and are not stored.
        total_bytes: of all that `items` gives, about.

    Raises:
        DsvlError: on entering, when a tensor is missing.
    """

    def __init__(self, checkpoint: Checkpoint, skeleton: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping

        self.names: list[str] = list(skeleton.state_dict())
        self.tied: set[str] = set()
        self.total_bytes = checkpoint.weight_bytes
        self._checkpoint = checkpoint
        self._may_be_tied: dict[str, str] = dict(getattr(skeleton, "all_tied_weights_keys", {}))
        # For names that are known to transformers alone.
        self._renamings: list[Any] = get_model_conversion_mapping(skeleton, add_legacy=False)
        self._tensors = StoredTensors(checkpoint, self._rename)

    def __enter__(self) -> SourceWeights:
        self._tensors.__enter__()
        try:
            self.tied = {name for name, other in self._may_be_tied.items() if self._is_shared(name, other)}
            # transformers leaves out of a file what the model does not use.
            self.names = [name for name in self.names if name in self._tensors or not name.startswith(POOLING_HEAD)]
            for name in self.names:
                if name not in self.tied and name not in self._tensors:
                    raise DsvlError(f"{self._checkpoint.name} has no {name}", "download it again")
        except BaseException:
            self._tensors.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._tensors.__exit__(*exception)

    def _rename(self, stored: str) -> str:
        name = canonical_name(stored)
        for renaming in self._renamings:
            name, _ = renaming.rename_source_key(name)
        return name

    def _is_shared(self, name: str, other: str) -> bool:
        """Whether a tied weight is the other one's; one that is stored with values of its own is not."""
        if name not in self._tensors:
            return True
        return other in self._tensors and torch.equal(self._tensors[name], self._tensors[other])

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Give each weight that is stored, in the module's order."""
        for name in self.names:
            if name not in self.tied:
                yield name, self._tensors[name]

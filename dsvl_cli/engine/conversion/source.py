"""The source weights of a quantization, by the names and in the order of transformers' module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.checkpoint.layouts import EMBEDDINGS, HEAD, POOLING_HEAD, canonical_name
from dsvl_cli.engine.checkpoint.tensors import StoredTensors
from dsvl_cli.errors import DsvlError


class SourceWeights:
    """A checkpoint's weights by the names of its module, as a context manager.

    Args:
        checkpoint: the files, not quantized.
        skeleton: its module, with or without weights.

    Attributes:
        names: of the module's whole state, in its order.
        tied: the names of weights that share another one's tensor and are not stored.
        total_bytes: the approximate size of everything that `items` yields.

    Raises:
        DsvlError: on entering, if a tensor is missing.
    """

    def __init__(self, checkpoint: Checkpoint, skeleton: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping

        self.names: list[str] = list(skeleton.state_dict())
        self.tied: set[str] = set(getattr(skeleton, "all_tied_weights_keys", {}))
        self.total_bytes = checkpoint.weight_bytes
        self._checkpoint = checkpoint
        # For older names that only transformers knows.
        self._renamings: list[Any] = get_model_conversion_mapping(skeleton, add_legacy=False)
        self._tensors = StoredTensors(checkpoint, self._rename)

    def __enter__(self) -> SourceWeights:
        self._tensors.__enter__()
        try:
            # transformers does not save what the model does not use.
            self.names = [name for name in self.names if name in self._tensors or not name.startswith(POOLING_HEAD)]
            for name in self.names:
                if name not in self.tied and self._stored(name) not in self._tensors:
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

    def _stored(self, name: str) -> str:
        """Return the stored name of a weight: tied embeddings may be stored under the name of the head."""
        return HEAD if name == EMBEDDINGS and HEAD in self.tied and name not in self._tensors else name

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each stored weight with its name, in the module's order."""
        for name in self.names:
            if name not in self.tied:
                yield name, self._tensors[self._stored(name)]

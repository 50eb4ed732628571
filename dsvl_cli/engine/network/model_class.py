"""transformers' class of a checkpoint, and its module without weights."""

from __future__ import annotations

from typing import Any

import torch

from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.network.library_logging import spare_torchao


def find_model_class(model_type: str) -> Any:
    """Return transformers' concrete class; an Auto class would import every model in its mapping."""
    with spare_torchao():
        if model_type == "deepseek_vl_hybrid":
            from transformers.models.deepseek_vl_hybrid.modeling_deepseek_vl_hybrid import (
                DeepseekVLHybridForConditionalGeneration,
            )

            return DeepseekVLHybridForConditionalGeneration
        from transformers.models.deepseek_vl.modeling_deepseek_vl import DeepseekVLForConditionalGeneration

        return DeepseekVLForConditionalGeneration


def make_skeleton(checkpoint: Checkpoint) -> Any:
    """Build a checkpoint's module without allocating its weights (on torch's device `meta`)."""
    model_class = find_model_class(checkpoint.model_type)
    config = model_class.config_class.from_pretrained(checkpoint.path, local_files_only=True)
    if checkpoint.has_own_head:
        config.tie_word_embeddings = False
    with torch.device("meta"):
        return model_class(config)

"""Makers of small checkpoints with random weights, for what the embedded model is not: a hybrid, a base model."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import DeepseekVLHybridConfig, DeepseekVLHybridForConditionalGeneration, GenerationConfig
from transformers.models.deepseek_vl_hybrid.image_processing_pil_deepseek_vl_hybrid import (
    DeepseekVLHybridImageProcessorPil,
)
from transformers.models.deepseek_vl_hybrid.processing_deepseek_vl_hybrid import DeepseekVLHybridProcessor
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.model import VisionLanguageModel
from dsvl_cli.engine.network.model_class import find_model_class


def write_hybrid(folder: Path, seed: int = 0) -> None:
    """Write a hybrid: SigLIP at 64 px (16 tokens), SAM at 256 px, two layers of Llama, the embedded tokenizer.

    The weights are drawn wide, so that what it says depends on the pictures and on every token before.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(EMBEDDED_FOLDER, local_files_only=True)
    image_id = tokenizer.convert_tokens_to_ids("<image_placeholder>")
    eos = tokenizer.eos_token_id
    text = {
        "model_type": "llama", "vocab_size": _embedded_vocabulary(), "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": eos, "initializer_range": 0.2,
    }  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 64, "patch_size": 16, "vision_use_head": False,
    }  # fmt: skip
    high = {
        "model_type": "sam_vision_model", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 256, "patch_size": 16, "mlp_dim": 128, "output_channels": 16, "global_attn_indexes": [1],
        "window_size": 4,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = DeepseekVLHybridForConditionalGeneration(
        DeepseekVLHybridConfig(
            text_config=text, vision_config=vision, high_res_vision_config=high, image_token_id=image_id
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15 if "language_model" in name else 0.05)
        model.model.high_res_vision_alpha.fill_(0.5)
    model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=eos)
    images = DeepseekVLHybridImageProcessorPil(
        size={"height": 64, "width": 64}, high_res_size={"height": 256, "width": 256},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    template = (EMBEDDED_FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
    disable_progress_bar()
    model.save_pretrained(folder)
    DeepseekVLHybridProcessor(images, tokenizer, chat_template=template, num_image_tokens=16).save_pretrained(folder)


def write_base(folder: Path) -> None:
    """Write the embedded model as a base checkpoint: the same, without a chat template."""
    for file in EMBEDDED_FOLDER.iterdir():
        if file.is_file() and file.name not in ("chat_template.jinja", "README.md"):
            shutil.copy(file, folder)


def _embedded_vocabulary() -> int:
    import json

    config = json.loads((EMBEDDED_FOLDER / "config.json").read_text(encoding="utf-8"))
    return int(config["text_config"]["vocab_size"])


def load_reference(model: VisionLanguageModel) -> Any:
    """Give transformers' own module with the weights of a float32 model; kept for the next call."""
    return _load_reference(model.checkpoint.path, model.checkpoint.model_type)


@cache
def _load_reference(folder: Path, model_type: str) -> Any:
    return find_model_class(model_type).from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


if __name__ == "__main__":
    import sys

    write_hybrid(Path(sys.argv[1]))

"""The tiny DeepSeek-VL: its configuration and processor, and exporting the checkpoint.

Sizes meet the requirements of quantized kernels: out-features are multiples of 32, in-features multiples of 128.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from transformers import DeepseekVLConfig, DeepseekVLForConditionalGeneration, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil
from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor

from training.tokenizer import BOS, EOS, IMAGE, SYSTEM, VOCABULARY

PICTURE_SIDE = 128  # pixels
PATCH_SIDE = 16
GRID = PICTURE_SIDE // PATCH_SIDE
IMAGE_TOKENS = GRID * GRID
WIDTH = 256
POSITIONS = 4096

# An exact copy of the template of the public DeepSeek-VL checkpoints, from the converter in transformers: the embedded
# model treats spaces and adjacent texts as users' checkpoints do.
CHAT_TEMPLATE = (
    "{% set seps = ['\n\n', '" + EOS + "'] %}{% set i = 0 %}" + SYSTEM + "\n\n"
    "{% for message in messages %}"
    "{% if message['role']|lower == 'user' %}User: "
    "{% elif message['role']|lower == 'assistant' %}Assistant:"
    "{% if not (loop.last and not add_generation_prompt and message['content'][0]['type']=='text'"
    " and message['content'][0]['text']=='') %} {% endif %}"
    "{% else %}{{ message['role'].capitalize() }}: {% endif %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}" + IMAGE + "{% elif content['type'] == 'text' %}"
    "{% set text = content['text'] %}"
    "{% if loop.first %}{% set text = text.lstrip() %}{% endif %}"
    "{% if loop.last %}{% set text = text.rstrip() %}{% endif %}"
    "{% if not loop.first and message['content'][loop.index0-1]['type'] == 'text' %}{{ ' ' + text }}"
    "{% else %}{{ text }}{% endif %}"
    "{% endif %}"
    "{% endfor %}"
    "{% if not loop.last or add_generation_prompt %}"
    "{% if message['role']|lower == 'user' %}{{ seps[0] }}{% else %}{{ seps[1] }}{% endif %}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def build_model(tokenizer: PreTrainedTokenizerFast) -> DeepseekVLForConditionalGeneration:
    """Return the model with initial weights in float32, about 5.3 million parameters."""
    vocabulary = tokenizer.get_vocab()
    bos, eos, image = vocabulary[BOS], vocabulary[EOS], vocabulary[IMAGE]
    text = {
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 512,
        "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": POSITIONS, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True, "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": eos,
    }  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": WIDTH, "intermediate_size": 512, "num_hidden_layers": 4,
        "num_attention_heads": 4, "image_size": PICTURE_SIDE, "patch_size": PATCH_SIDE, "vision_use_head": False,
    }  # fmt: skip
    config = DeepseekVLConfig(text_config=text, vision_config=vision, image_token_id=image, tie_word_embeddings=True)
    model = DeepseekVLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(bos_token_id=bos, eos_token_id=eos, pad_token_id=eos)
    with torch.no_grad():
        # By default the patches drown out the positions (rms 14 against 0.4), which are then learnt late: balance them.
        embeddings = model.model.vision_model.embeddings
        embeddings.patch_embedding.weight.mul_(0.1)
        embeddings.position_embedding.weight.normal_(std=0.3)
        # Gives logits of unit scale with the tied head, and matches the scale of the visual code.
        model.model.language_model.embed_tokens.weight.normal_(std=1 / WIDTH**0.5)
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast) -> DeepseekVLProcessor:
    """Return the processor: resizes the longest side to 128 pixels, pads to a grey square, scales to -1..1."""
    images = DeepseekVLImageProcessorPil(
        size={"height": PICTURE_SIDE, "width": PICTURE_SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return DeepseekVLProcessor(images, tokenizer, chat_template=CHAT_TEMPLATE, num_image_tokens=IMAGE_TOKENS)


def export_checkpoint(
    model: DeepseekVLForConditionalGeneration, processor: DeepseekVLProcessor, folder: Path, weights_only: bool = False
) -> None:
    """Write the checkpoint in bfloat16, each file atomically by a rename."""
    folder.mkdir(parents=True, exist_ok=True)
    half = DeepseekVLForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half.generation_config = model.generation_config
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        half.bfloat16().save_pretrained(draft)
        if not weights_only:
            processor.save_pretrained(draft)
        for file in sorted(Path(draft).iterdir()):
            if not weights_only or file.suffix == ".safetensors":
                file.chmod(0o644)  # safetensors makes it readable by the owner only
                os.replace(file, folder / file.name)

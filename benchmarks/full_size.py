"""`python -m benchmarks.full_size OUT`: writes a full-size DeepSeek-VL with random weights for benchmarks."""

import argparse
import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil
from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor
from transformers.models.deepseek_vl_hybrid.image_processing_pil_deepseek_vl_hybrid import (
    DeepseekVLHybridImageProcessorPil,
)
from transformers.models.deepseek_vl_hybrid.processing_deepseek_vl_hybrid import DeepseekVLHybridProcessor

BOS, EOS, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<image_placeholder>"
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
TEMPLATE = (
    "{{ bos_token }}" + SYSTEM + "{{ '\\n\\n' }}"  # an expression: transformers trims a newline right after a block tag
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}User: {% elif m['role'] == 'assistant' %}Assistant: "
    "{% else %}{{ m['role']|capitalize }}: {% endif %}"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}"
    + IMAGE
    + "{% else %}{{ p['text'] }}{% endif %}{% endfor %}"
    "{% if not loop.last or add_generation_prompt %}{% if m['role'] == 'user' %}{{ '\\n\\n' }}{% else %}"
    + EOS
    + "{% endif %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on available English text, for prompts of realistic length, with the real special ids."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(
        [SYSTEM, *topics.values()],
        trainers.BpeTrainer(vocab_size=8000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    bpe = json.loads(trained.to_str())["model"]
    vocab = dict(bpe["vocab"])
    vocab.update({f"<filler_{i}>": i for i in range(len(vocab), 100000)})
    vocab.update({BOS: 100000, EOS: 100001})
    vocab.update({f"<filler_{i}>": i for i in range(100002, 100015)})
    vocab[IMAGE] = 100015
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m) for m in bpe["merges"]]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tok,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
    )


def main() -> None:
    """Write the checkpoint."""
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("out", type=Path)
    ap.add_argument("--size", choices=["1.3b", "7b"], default="1.3b")
    a = ap.parse_args()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    big = a.size == "7b"
    text = {
        "model_type": "llama",
        "vocab_size": 102400,
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 100000,
        "eos_token_id": 100001,
        "tie_word_embeddings": False,
        "hidden_size": 4096 if big else 2048,
        "intermediate_size": 11008 if big else 5632,
        "num_hidden_layers": 30 if big else 24,
        "num_attention_heads": 32 if big else 16,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 16,
        "vision_use_head": False,
    }
    std: Any = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    model: Any
    processor: Any
    if big:
        high = {
            "model_type": "sam_vision_model",
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 1024,
            "patch_size": 16,
            "mlp_dim": 3072,
        }
        model = DeepseekVLHybridForConditionalGeneration(
            DeepseekVLHybridConfig(
                text_config=text,
                vision_config=vision,
                high_res_vision_config=high,
                image_token_id=100015,
                tie_word_embeddings=False,
            )
        )
        processor = DeepseekVLHybridProcessor(
            DeepseekVLHybridImageProcessorPil(**std), tokenizer(), chat_template=TEMPLATE
        )
    else:
        model = DeepseekVLForConditionalGeneration(
            DeepseekVLConfig(text_config=text, vision_config=vision, image_token_id=100015, tie_word_embeddings=False)
        )
        processor = DeepseekVLProcessor(DeepseekVLImageProcessorPil(**std), tokenizer(), chat_template=TEMPLATE)
    model.generation_config = GenerationConfig(bos_token_id=100000, eos_token_id=100001, pad_token_id=100001)
    model.save_pretrained(a.out, max_shard_size="2GB")
    processor.save_pretrained(a.out)
    print(a.out, f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f} B parameters")


if __name__ == "__main__":
    main()

"""Write a checkpoint with an older transformers, as the public ones were written: 4.55.4.

Run by that release's own Python, and by nothing else; it imports nothing of dsvl:

    python -m venv old && old/bin/pip install torch "transformers==4.55.4" pillow
    old/bin/python tests/foreign/writer.py dsvl_cli/tiny OUT [--dtype float16] [--shards] [--tied]

SOURCE is a folder of today's transformers, of the 1.3b's class or the 7b's. The classes of that release make every file
of OUT; what today's release writes otherwise is listed in dsvl_cli/engine/checkpoint/layouts.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast


def read_config(source: Path, *, tied: bool) -> dict[str, Any]:
    """Give `config.json` under the names of that release."""
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    text = config["text_config"]
    text["rope_theta"] = (text.pop("rope_parameters", None) or {}).get("rope_theta", 10000.0)
    text["tie_word_embeddings"] = tied  # what that release goes by
    parts = ("text_config", "vision_config", "high_res_vision_config", "image_token_id")
    for part in config.values():
        if isinstance(part, dict):
            part.pop("dtype", None)
    return {**{name: config[name] for name in parts if name in config}, "tie_word_embeddings": tied}


def read_tensors(source: Path, dtype: torch.dtype, *, tied: bool) -> dict[str, torch.Tensor]:
    """Give the tensors under the names of that release."""
    tensors = {}
    for file in sorted(source.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            nested = name.replace("model.vision_model.", "model.vision_model.vision_model.", 1)
            tensors[nested] = tensor.to(dtype)
    embeddings = tensors["model.language_model.embed_tokens.weight"]
    if tied:
        tensors["lm_head.weight"] = embeddings
    else:
        tensors.setdefault("lm_head.weight", embeddings.clone())
    return tensors


def make_tokenizer(source: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer; its begin token comes from a post-processor, as in the public checkpoints."""
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    fast = Tokenizer.from_file(str(source / "tokenizer.json"))
    bos = settings["bos_token"]
    fast.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, fast.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token=bos, eos_token=settings["eos_token"], pad_token=settings["pad_token"],
        extra_special_tokens={"image_token": "<image_placeholder>"},
    )  # fmt: skip


def make_image_processor(source: Path, name: str) -> Any:
    """Make the image processor with the settings that today's file holds."""
    settings = json.loads((source / "processor_config.json").read_text(encoding="utf-8"))["image_processor"]
    kept = ("size", "high_res_size", "resample", "high_res_resample", "image_mean", "image_std", "high_res_image_mean",
            "high_res_image_std", "min_size")  # fmt: skip
    return getattr(transformers, name)(**{key: settings[key] for key in kept if key in settings})


def main() -> None:
    """Write OUT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--shards", action="store_true", help="several files with an index")
    parser.add_argument("--tied", action="store_true", help="the head shares the weights of the embeddings")
    given = parser.parse_args()
    kind = json.loads((given.source / "config.json").read_text(encoding="utf-8"))["model_type"]
    family = {"deepseek_vl": "DeepseekVL", "deepseek_vl_hybrid": "DeepseekVLHybrid"}[kind]
    dtype = getattr(torch, given.dtype)
    torch.set_default_dtype(dtype)
    config = getattr(transformers, f"{family}Config")(**read_config(given.source, tied=given.tied))
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    model.load_state_dict(read_tensors(given.source, dtype, tied=given.tied), strict=True)
    settings = json.loads((given.source / "processor_config.json").read_text(encoding="utf-8"))
    processor = getattr(transformers, f"{family}Processor")(
        make_image_processor(given.source, f"{family}ImageProcessor"),
        make_tokenizer(given.source),
        chat_template=(given.source / "chat_template.jinja").read_text(encoding="utf-8"),
        num_image_tokens=settings["num_image_tokens"],
    )
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    model.save_pretrained(given.out, max_shard_size=size // 3 if given.shards else "100GB")
    processor.save_pretrained(given.out)
    sys.stdout.write(f"{given.out}: written by transformers {transformers.__version__}\n")


if __name__ == "__main__":
    main()

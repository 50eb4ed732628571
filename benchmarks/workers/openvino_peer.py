"""OpenVINO on a language model of a checkpoint's shape with random weights; prints one line of JSON.

For another interpreter: it needs the package optimum-intel[openvino], nothing of dsvl.

    PYTHON -m benchmarks.workers.openvino_peer make CHECKPOINT FOLDER [--kinds int8 int4]
    PYTHON -m benchmarks.workers.openvino_peer ask CHECKPOINT FOLDER --kind int4 --prompt-tokens 632 --new-tokens 100

`make` exports the models that the folder lacks, with the weights compressed as optimum does by default for that width.
`ask` evaluates a prompt of so many tokens, then one token at a time; there are no pictures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.workers.peer import Evaluate, locate, run

_BITS = {"int8": 8, "int4": 4}


def make(shape: dict[str, int], folder: Path, kinds: list[str], threads: int) -> None:
    """Export the missing models."""
    missing = {kind: path for kind in kinds if not (path := locate(folder, shape, kind)).exists()}
    if not missing:
        return
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    source = locate(folder, shape, "source")
    sizes: dict[str, Any] = {**shape, "num_key_value_heads": shape["num_attention_heads"]}
    LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=16384)).save_pretrained(source)
    for kind, path in missing.items():
        part = path.with_suffix(".part")
        compression = OVWeightQuantizationConfig(bits=_BITS[kind])
        model = OVModelForCausalLM.from_pretrained(source, export=True, compile=False, quantization_config=compression)
        model.save_pretrained(part)
        part.rename(path)  # never half a model under its name
    shutil.rmtree(source)


def load(path: Path, _tokens: int, threads: int) -> Callable[[], Evaluate]:
    """Load a model; it takes any number of tokens."""
    model = OVModelForCausalLM.from_pretrained(path, ov_config={"INFERENCE_NUM_THREADS": threads})

    def begin() -> Evaluate:
        past: Any = None
        length = 0

        def evaluate(tokens: Sequence[int]) -> None:
            nonlocal past, length
            length += len(tokens)
            mask = torch.ones((1, length), dtype=torch.int64)
            past = model(input_ids=torch.tensor([tokens]), attention_mask=mask, past_key_values=past).past_key_values

        return evaluate

    return begin


if __name__ == "__main__":
    run(_BITS, make, load, version("openvino"))

"""OpenVINO on a language model of a checkpoint's shape with random weights; prints one line of JSON.

A script of its own, for another interpreter: it needs the package optimum-intel[openvino], nothing of dsvl.

    PYTHON benchmarks/workers/openvino_peer.py make CHECKPOINT FOLDER [--kinds int8 int4]
    PYTHON benchmarks/workers/openvino_peer.py ask CHECKPOINT FOLDER --kind int4 --prompt-tokens 632 --new-tokens 100

`make` exports the models that the folder lacks, with the weights compressed as optimum does by default for that width.
`ask` evaluates a prompt of so many tokens, then one token at a time; there are no pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from transformers import LlamaConfig, LlamaForCausalLM

BITS = {"int8": 8, "int4": 4}
FIRST_TOKEN = 300  # those before are bytes and control tokens


def read_config(checkpoint: Path) -> LlamaConfig:
    """Return the configuration of the checkpoint's language model."""
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    sizes = {name: text[name] for name in names}
    return LlamaConfig(**sizes, num_key_value_heads=text["num_attention_heads"], max_position_embeddings=16384)


def locate(folder: Path, config: LlamaConfig, kind: str) -> Path:
    """Return the folder of the model of this shape and kind."""
    return folder / f"{config.hidden_size}x{config.num_hidden_layers}.openvino-{kind}"


def make(checkpoint: Path, folder: Path, kinds: list[str]) -> list[str]:
    """Export the missing models, and return the folders of all."""
    config = read_config(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: locate(folder, config, kind) for kind in kinds}
    missing = {kind: path for kind, path in paths.items() if not path.exists()}
    if missing:
        source = locate(folder, config, "source")
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        LlamaForCausalLM(config).save_pretrained(source)
        for kind, path in missing.items():
            part = path.with_suffix(".part")
            compression = OVWeightQuantizationConfig(bits=BITS[kind])
            model = OVModelForCausalLM.from_pretrained(
                source, export=True, compile=False, quantization_config=compression
            )
            model.save_pretrained(part)
            part.rename(path)  # never half a model under its name
        shutil.rmtree(source)
    return [str(path) for path in paths.values()]


def ask(model: Any, prompt_tokens: int, new_tokens: int) -> dict[str, float]:
    """Evaluate a prompt, which yields the first of `new_tokens` tokens, and the steps for the others."""
    span = model.config.vocab_size - FIRST_TOKEN
    prompt = torch.tensor([[FIRST_TOKEN + index % span for index in range(prompt_tokens)]])
    start = time.perf_counter()
    past = model(input_ids=prompt, attention_mask=torch.ones_like(prompt)).past_key_values
    first = time.perf_counter()
    for index in range(new_tokens - 1):
        mask = torch.ones((1, prompt_tokens + index + 1), dtype=torch.int64)
        token = torch.tensor([[FIRST_TOKEN + index % span]])
        past = model(input_ids=token, attention_mask=mask, past_key_values=past).past_key_values
    return {
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "first_seconds": first - start,
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Make models, or measure one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making, asking = commands.add_parser("make"), commands.add_parser("ask")
    for command in (making, asking):
        command.add_argument("checkpoint", type=Path)
        command.add_argument("folder", type=Path)
        command.add_argument("--threads", type=int, default=2)
    making.add_argument("--kinds", nargs="+", choices=BITS, default=list(BITS))
    asking.add_argument("--kind", choices=BITS, required=True)
    asking.add_argument("--prompt-tokens", type=int, required=True)
    asking.add_argument("--new-tokens", type=int, required=True)
    asking.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    if args.command == "make":
        print(json.dumps(make(args.checkpoint, args.folder, args.kinds)))
        return
    path = locate(args.folder, read_config(args.checkpoint), args.kind)
    start = time.perf_counter()
    model = OVModelForCausalLM.from_pretrained(path, ov_config={"INFERENCE_NUM_THREADS": args.threads})
    load = time.perf_counter() - start
    ask(model, 16, 2)  # warms up
    runs = [ask(model, args.prompt_tokens, args.new_tokens) for _ in range(args.repeats)]
    print(json.dumps({"load_seconds": load, "runs": runs, "version": version("openvino")}))


if __name__ == "__main__":
    main()

"""llama.cpp on a language model of a checkpoint's shape with random weights; prints one line of JSON.

A script of its own, for another interpreter: it needs the packages llama-cpp-python, gguf and numpy, nothing of dsvl.

    PYTHON benchmarks/workers/llama.py make CHECKPOINT FOLDER [--kinds bf16 q8_0 q4_0]
    PYTHON benchmarks/workers/llama.py ask CHECKPOINT FOLDER --kind q4_0 --prompt-tokens 632 --new-tokens 100

`make` writes the models that the folder lacks. `ask` evaluates a prompt of so many tokens, then one token at a time;
there are no pictures.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

KINDS = {"bf16": 32, "q8_0": 7, "q4_0": 2}  # llama.cpp's numbers of file types
FIRST_TOKEN = 300  # those before are bytes and control tokens


def read_shape(checkpoint: Path) -> dict[str, int]:
    """Return the sizes of the checkpoint's language model."""
    config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    return {name: config[name] for name in names}


def locate(folder: Path, shape: dict[str, int], kind: str) -> Path:
    """Return the path of the model of this shape and kind."""
    return folder / f"{shape['hidden_size']}x{shape['num_hidden_layers']}.{kind}.gguf"


def write_source(path: Path, shape: dict[str, int]) -> None:
    """Write a Llama with random weights in float16."""
    hidden, wide, layers, heads, vocabulary = shape.values()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(16384)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(1)
    writer.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"t{index}" for index in range(vocabulary - len(tokens))]
    writer.add_token_list([token.encode() for token in tokens])
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (vocabulary - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    rng = np.random.default_rng(0)

    def add(name: str, *size: int) -> None:
        values = rng.standard_normal(size, dtype=np.float32) * np.float32(0.02)
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))

    add("token_embd", vocabulary, hidden)
    add("output", vocabulary, hidden)
    add_norm("output_norm")
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}", hidden, hidden)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}", wide, hidden)
        add(f"blk.{layer}.ffn_down", hidden, wide)
        for name in ("attn_norm", "ffn_norm"):
            add_norm(f"blk.{layer}.{name}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(checkpoint: Path, folder: Path, kinds: list[str], threads: int) -> list[str]:
    """Write the missing models, and return the paths of all."""
    shape = read_shape(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: locate(folder, shape, kind) for kind in kinds}
    missing = {kind: path for kind, path in paths.items() if not path.exists()}
    if missing:
        source = locate(folder, shape, "source")
        write_source(source, shape)
        for kind, path in missing.items():
            params = llama_cpp.llama_model_quantize_default_params()
            params.ftype, params.nthread = KINDS[kind], threads
            part = path.with_suffix(".part")
            if llama_cpp.llama_model_quantize(str(source).encode(), str(part).encode(), params):
                raise SystemExit(f"llama.cpp could not write {path}")
            part.rename(path)  # never half a model under its name
        source.unlink()
    return [str(path) for path in paths.values()]


def ask(model: Any, prompt_tokens: int, new_tokens: int) -> dict[str, float]:
    """Evaluate a prompt, which yields the first of `new_tokens` tokens, and the steps for the others."""
    vocabulary = model.n_vocab()
    model.reset()
    start = time.perf_counter()
    model.eval([FIRST_TOKEN + index % (vocabulary - FIRST_TOKEN) for index in range(prompt_tokens)])
    first = time.perf_counter()
    for index in range(new_tokens - 1):
        model.eval([FIRST_TOKEN + index % (vocabulary - FIRST_TOKEN)])
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
    making.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    asking.add_argument("--kind", choices=KINDS, required=True)
    asking.add_argument("--prompt-tokens", type=int, required=True)
    asking.add_argument("--new-tokens", type=int, required=True)
    asking.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    if args.command == "make":
        print(json.dumps(make(args.checkpoint, args.folder, args.kinds, args.threads)))
        return
    path = locate(args.folder, read_shape(args.checkpoint), args.kind)
    start = time.perf_counter()
    model = llama_cpp.Llama(
        str(path),
        n_ctx=args.prompt_tokens + args.new_tokens + 32,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        n_batch=1024,
        n_ubatch=1024,
        verbose=False,
    )
    load = time.perf_counter() - start
    ask(model, 16, 2)  # warms up
    runs = [ask(model, args.prompt_tokens, args.new_tokens) for _ in range(args.repeats)]
    print(json.dumps({"load_seconds": load, "runs": runs, "version": llama_cpp.__version__}))


if __name__ == "__main__":
    main()

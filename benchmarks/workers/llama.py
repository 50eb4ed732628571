"""llama.cpp on a language model of a checkpoint's shape with random weights; prints one line of JSON.

For another interpreter: it needs the packages llama-cpp-python, gguf and numpy, nothing of dsvl.

    PYTHON -m benchmarks.workers.llama make CHECKPOINT FOLDER [--kinds bf16 q8_0 q4_0]
    PYTHON -m benchmarks.workers.llama ask CHECKPOINT FOLDER --kind q4_0 --prompt-tokens 632 --new-tokens 100

`make` writes the models that the folder lacks. `ask` evaluates a prompt of so many tokens, then one token at a time;
there are no pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from benchmarks.workers.peer import Evaluate, locate, run

_KINDS = {"bf16": 32, "q8_0": 7, "q4_0": 2}  # llama.cpp's numbers of file types


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


def make(shape: dict[str, int], folder: Path, kinds: list[str], threads: int) -> None:
    """Write the missing models."""
    missing = {kind: path for kind in kinds if not (path := locate(folder, shape, kind)).exists()}
    if not missing:
        return
    source = locate(folder, shape, "source")
    write_source(source, shape)
    for kind, path in missing.items():
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.nthread = _KINDS[kind], threads
        part = path.with_suffix(".part")
        if llama_cpp.llama_model_quantize(str(source).encode(), str(part).encode(), params):
            raise SystemExit(f"llama.cpp could not write {path}")
        part.rename(path)  # never half a model under its name
    source.unlink()


def load(path: Path, tokens: int, threads: int) -> Callable[[], Evaluate]:
    """Load a model for so many tokens."""
    model = llama_cpp.Llama(
        str(path),
        n_ctx=tokens + 32,
        n_threads=threads,
        n_threads_batch=threads,
        n_batch=1024,
        n_ubatch=1024,
        verbose=False,
    )

    def begin() -> Evaluate:
        model.reset()
        return lambda tokens: model.eval(tokens)

    return begin


if __name__ == "__main__":
    run(_KINDS, make, load, llama_cpp.__version__)

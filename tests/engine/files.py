"""The files of models that are too small for anything but being looked at."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {"model_type": "deepseek_vl", "text_config": {}, "vision_config": {}}


def make_weights(shapes: dict[str, tuple[int, ...]], fill: bytes = b"\0") -> bytes:
    """A safetensors file of bf16 tensors."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + fill * end


def make_files(**changes: bytes | None) -> dict[str, bytes]:
    """The files of a small model; a change of None leaves a file out (`_` stands for the dot of its name)."""
    files: dict[str, bytes | None] = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"model_max_length": 16384}',
        "processor_config.json": b'{"num_image_tokens": 576}',
        "chat_template.jinja": b"{{ messages }}",
        "model.safetensors": make_weights({"a": (64, 32), "b": (32,)}),
    }
    for name, content in changes.items():
        stem, _, ending = name.rpartition("_")
        files[f"{stem}.{ending}"] = content
    return {name: content for name, content in files.items() if content is not None}


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def make_sharded_files() -> dict[str, bytes]:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[1]}}
    return make_files(model_safetensors=None) | {
        "model.safetensors.index.json": json.dumps(index).encode(),
        names[0]: make_weights({"a": (8, 8)}),
        names[1]: make_weights({"b": (4,), "c": (2, 2)}),
    }

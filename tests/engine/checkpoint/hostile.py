"""Checkpoints that a stranger made: the embedded model with one thing changed, by families of mutations.

Each is `REFUSED`, in one line, or `HARMLESS`: it may be refused, or answer.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER

REFUSED, HARMLESS = "refused", "harmless"

Header = dict[str, Any]
Pieces = dict[str, bytes]
_LAYER = "model.language_model.layers."
_TOWER = "model.vision_model."
LONG = 10**30


@dataclass(frozen=True)
class Variant:
    """A hostile checkpoint.

    Attributes:
        name: unique.
        write: changes files in a folder that has links to those of the embedded model.
        wanted: how it must end.
        quantization: to load it with.
    """

    name: str
    write: Callable[[Path], None] = field(repr=False)
    wanted: str = REFUSED
    quantization: str | None = None

    def make(self, folder: Path) -> Path:
        """Write the checkpoint into a new folder."""
        folder.mkdir()
        for file in EMBEDDED_FOLDER.iterdir():
            if file.is_file() and file.name != "README.md":
                os.symlink(file, folder / file.name)
        self.write(folder)
        return folder


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Write a file in place of a link."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content)


def edit(name: str, *path: str, value: Any) -> Callable[[Path], None]:
    """Set a value in a JSON file; `...` removes it."""

    def write(folder: Path) -> None:
        page = json.loads((folder / name).read_text("utf-8"))
        place = page
        for step in path[:-1]:
            place = place[step]
        if value is ...:
            place.pop(path[-1], None)
        else:
            place[path[-1]] = value
        # Infinity and NaN are not JSON, but Python reads and writes them.
        replace_file(folder, name, json.dumps(page).encode())

    return write


def raw(name: str, content: bytes, times: int = 1, end: bytes = b"") -> Callable[[Path], None]:
    """Write a file: the content, some times, and an end; only when it is needed, since some are large."""
    return lambda folder: replace_file(folder, name, content * times + end)


# Numbers

_SIZES = {
    "text_config": (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "vocab_size",
    ),
    "vision_config": (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
    ),
}  # fmt: skip


def _numbers() -> Iterator[Variant]:
    config = embedded_json("config.json")
    for part, names in _SIZES.items():
        for name in names:
            size = config[part][name]
            for value in (0, size + 1, 2 * size, 2**40, LONG, "7", [size]):
                # Twice as many heads of half the width have the same shapes.
                kind = HARMLESS if (part, name, value) == ("vision_config", "num_attention_heads", 8) else REFUSED
                yield Variant(f"{part}.{name} is {value!r:.20}", edit("config.json", part, name, value=value), kind)
    text: dict[str, tuple[Any, ...]] = {
        "max_position_embeddings": (0, -5, 1, LONG, "many"),
        "rms_norm_eps": (-1.0, math.nan, math.inf, "x", [1], 1e6),
        "hidden_act": ("gelu", "x", 7, ["silu"]),
        "rope_parameters": ("x", [1], {"rope_type": "yarn"}, {"rope_type": ["default"]}, {"rope_theta": "x"},
                            {"rope_theta": 0.0}, {"rope_theta": -1.0}, {"rope_theta": math.nan}, {"rope_theta": [1]},
                            {"rope_theta": math.inf}, {"rope_theta": 1e-300}),
        "attention_bias": (True,),
    }  # fmt: skip
    for name, values in text.items():
        for value in values:
            yield Variant(f"text_config.{name} is {value!r:.30}", edit("config.json", "text_config", name, value=value))
    for value in (-1.0, math.nan, "x", [1]):
        yield Variant(
            f"vision_config.layer_norm_eps is {value!r}",
            edit("config.json", "vision_config", "layer_norm_eps", value=value),
        )
    for value in ("x", 7, ["gelu"], None):
        kind = HARMLESS if value is None else REFUSED  # the default of SiglipVisionConfig
        yield Variant(
            f"vision_config.hidden_act is {value!r}",
            edit("config.json", "vision_config", "hidden_act", value=value),
            kind,
        )
    for value in (-1, 5, 1021, 1022, 1024, 2**40, LONG, "x", None, 1023.5, [1023], True):
        yield Variant(f"image_token_id is {value!r:.20}", edit("config.json", "image_token_id", value=value))
    for part in ("text_config", "vision_config"):
        for value in (None, [], "x", 5, ...):
            yield Variant(f"{part} is {value!r}", edit("config.json", part, value=value))
    for value in ({"quant_method": "gptq"}, "x", {}, {"quant_method": "bitsandbytes", "load_in_4bit": True},
                  {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": "x"},
                  {"quant_method": "torchao", "quant_type": {"default": {"_type": "x"}}}):  # fmt: skip
        kind = HARMLESS if "load_in_8bit" in value else REFUSED  # it says more than is true: nothing is quantized
        yield Variant(
            f"quantization_config is {value!r:.70}", edit("config.json", "quantization_config", value=value), kind
        )
    for value in ("deepseek_vl_hybrid", "llama", None, ["deepseek_vl"], {"a": 1}):
        yield Variant(f"model_type is {value!r}", edit("config.json", "model_type", value=value))
    yield Variant("an untied head is missing", edit("config.json", "tie_word_embeddings", value=False))
    yield Variant(
        "2 heads, 4 key-value heads",
        lambda folder: (
            edit("config.json", "text_config", "num_attention_heads", value=2)(folder),
            edit("config.json", "text_config", "head_dim", value=128)(folder),
        )[0],
    )
    yield Variant("config.json is nested", raw("config.json", b"[", 10**6))
    yield Variant("config.json is 100 MB", raw("config.json", b" ", 10**8, b"{}"))
    yield Variant("config.json is many objects", raw("config.json", b'{"a": [{}]}, ', 10**6))


# Weights


@cache
def embedded_json(name: str) -> Any:
    return json.loads((EMBEDDED_FOLDER / name).read_text("utf-8"))


@cache
def _embedded_weights() -> tuple[Header, Pieces]:
    data = (EMBEDDED_FOLDER / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    start = 8 + length
    pieces = {
        name: data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        for name, entry in header.items()
    }
    return header, pieces


def write_weights(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    """Write a safetensors file of tensors: dtype, shape and data."""
    header, end = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def _tensors() -> dict[str, tuple[str, list[int], bytes]]:
    header, pieces = _embedded_weights()
    return {name: (entry["dtype"], entry["shape"], pieces[name]) for name, entry in header.items()}


_WIDTHS = {
    "BF16": 2,
    "F16": 2,
    "F32": 4,
    "F64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
}


def _reshape(name: str, shape: list[int], dtype: str = "BF16") -> Callable[[Path], None]:
    """Give a tensor another shape or dtype, with data of the right length."""

    def write(folder: Path) -> None:
        tensors = _tensors()
        data = tensors.get(name, ("", [], b"\x3c\x3c"))[2]
        size = math.prod(shape) * _WIDTHS[dtype]
        tensors[name] = (dtype, shape, (data * (size // len(data) + 1))[:size])
        write_weights(folder / "model.safetensors", tensors)

    return write


def _change(change: Callable[[dict[str, tuple[str, list[int], bytes]]], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors = _tensors()
        change(tensors)
        write_weights(folder / "model.safetensors", tensors)

    return write


_SHAPED = (
    f"{_LAYER}0.self_attn.q_proj.weight", f"{_LAYER}3.self_attn.k_proj.weight", f"{_LAYER}3.self_attn.o_proj.weight",
    f"{_LAYER}3.mlp.gate_proj.weight", f"{_LAYER}3.mlp.down_proj.weight", f"{_LAYER}1.input_layernorm.weight",
    f"{_LAYER}3.post_attention_layernorm.weight", "model.language_model.norm.weight",
    "model.language_model.embed_tokens.weight",
    f"{_TOWER}embeddings.patch_embedding.weight", f"{_TOWER}embeddings.position_embedding.weight",
    f"{_TOWER}encoder.layers.3.mlp.fc1.weight", f"{_TOWER}encoder.layers.3.self_attn.q_proj.bias",
    f"{_TOWER}encoder.layers.0.layer_norm1.weight", f"{_TOWER}post_layernorm.bias", "model.aligner.linear2.weight",
    "model.aligner.linear1.bias",
)  # fmt: skip


def _shapes() -> Iterator[Variant]:
    header, _ = _embedded_weights()
    for name in _SHAPED:
        shape = header[name]["shape"]
        short = name.removeprefix("model.").removesuffix(".weight")
        shapes = {
            "shorter": [shape[0] // 2, *shape[1:]],
            "of one number": [1] * len(shape),
            "longer": [shape[0] + 1, *shape[1:]],
            "flat": [math.prod(shape)] if len(shape) > 1 else [1, *shape],
            "empty": [0, *shape[1:]],
        }
        if len(shape) > 1:
            shapes["narrower"] = [*shape[:-1], shape[-1] // 2]
            shapes["a number"] = []
        for what, changed in shapes.items():
            yield Variant(f"{short} is {what}", _reshape(name, changed))
    for name in ("narrower", "shorter"):
        changed = [1024, 128] if name == "narrower" else [512, 256]
        yield Variant(f"the head is {name}", _reshape("lm_head.weight", changed))
    for dtype in ("I8", "U8", "BOOL", "I64", "F8_E4M3"):
        for tensor in (
            f"{_LAYER}3.mlp.up_proj.weight",
            "model.language_model.norm.weight",
            "model.aligner.linear1.weight",
        ):
            yield Variant(f"{tensor} has dtype {dtype}", _reshape(tensor, header[tensor]["shape"], dtype))
    for name in (f"{_LAYER}3.mlp.up_proj.weight", "model.language_model.norm.weight", f"{_TOWER}post_layernorm.bias",
                 "model.language_model.embed_tokens.weight"):  # fmt: skip
        yield Variant(f"there is no {name}", _change(lambda tensors, name=name: tensors.pop(name) and None))  # type: ignore[misc]
    yield Variant("there are no tensors", _change(lambda tensors: tensors.clear()))


def _values() -> Iterator[Variant]:
    """Numbers that are none."""
    bad = {"NaN": b"\xc0\x7f", "infinite": b"\x80\x7f"}
    names = (
        f"{_LAYER}0.self_attn.q_proj.weight", f"{_LAYER}3.self_attn.v_proj.weight", f"{_LAYER}3.mlp.down_proj.weight",
        f"{_LAYER}2.input_layernorm.weight", "model.language_model.norm.weight",
        "model.language_model.embed_tokens.weight",
        f"{_TOWER}embeddings.patch_embedding.weight", f"{_TOWER}encoder.layers.1.self_attn.k_proj.weight",
        f"{_TOWER}encoder.layers.1.mlp.fc2.bias", "model.aligner.linear2.weight",
    )  # fmt: skip
    for what, number in bad.items():
        for name in names:
            for quantization in (None, "int8", "int4"):
                if quantization and what == "infinite":
                    continue

                def change(
                    tensors: dict[str, tuple[str, list[int], bytes]], name: str = name, number: bytes = number
                ) -> None:
                    dtype, shape, data = tensors[name]
                    middle = len(data) // 4 * 2
                    tensors[name] = (dtype, shape, data[:middle] + number + data[middle + 2 :])

                label = f", {quantization}" if quantization else ""
                yield Variant(f"{name} has one {what} number{label}", _change(change), REFUSED, quantization)


def _headers() -> Iterator[Variant]:
    header, pieces = _embedded_weights()
    body = b"".join(pieces.values())  # shared by all that are made of it
    first = next(iter(header))

    def file(text: bytes, length: int | None = None, data: bytes = body) -> Callable[[Path], None]:
        size = len(text) if length is None else length
        return raw("model.safetensors", size.to_bytes(8, "little") + text + data)

    def entry(**changes: Any) -> bytes:
        return json.dumps({**header, first: {**header[first], **changes}}).encode()

    whole = json.dumps(header).encode()
    yield Variant("a header of 2^63 bytes", file(whole, 2**63 - 1))
    yield Variant("a header of 2^64 - 1 bytes", file(whole, 2**64 - 1))
    yield Variant("a header of 99 MB that is not there", file(whole, 99 * 10**6))
    yield Variant(
        "a header of 90 MB of objects",
        raw("model.safetensors", (90 * 10**6).to_bytes(8, "little") + b"[", 1, b"{}," * (30 * 10**6)),
    )
    yield Variant("a nested header", file(b'{"a":' + b"[" * 10**6 + b"]" * 10**6 + b"}"))
    yield Variant("a header that is a list", file(b"[1]"))
    yield Variant("a header that is no JSON", file(whole[:-1]))
    yield Variant("a header that is no UTF-8", file(whole[:-1] + b',"\xff":1}'))
    yield Variant("an empty file", raw("model.safetensors", b""))
    yield Variant("a file of 7 bytes", raw("model.safetensors", b"\0" * 7))
    yield Variant("a folder in place of the weights", lambda folder: _make_folder(folder / "model.safetensors"))
    yield Variant("a truncated file", file(whole, data=body[:-2]))
    yield Variant("a file that is too long", file(whole, data=body + b"\0" * 64))
    changes: dict[str, dict[str, Any]] = {
        "offsets that overlap": {"data_offsets": [0, len(body)]},
        "offsets backwards": {"data_offsets": [512, 0]},
        "offsets below 0": {"data_offsets": [-512, 0]},
        "offsets far away": {"data_offsets": [2**62, 2**62 + 512]},
        "one offset": {"data_offsets": [0]},
        "offsets that are texts": {"data_offsets": ["0", "512"]},
        "a side below 0": {"shape": [-256]},
        "a side that overflows": {"shape": [2**63, 2]},
        "a side of 30 digits": {"shape": [LONG]},
        "a side that is a text": {"shape": ["256"]},
        "a side that is a fraction": {"shape": [256.5]},
        "a side of 5,000 digits": {"shape": []},
        "a shape that is a number": {"shape": 256},
        "a dtype that is not known": {"dtype": "X99"},
        "a dtype that is a list": {"dtype": ["BF16"]},
        "a shape that does not fit the data": {"shape": [128]},
        "no dtype": {"dtype": None},
    }
    for what, change in changes.items():
        text = entry(**change)
        if what == "a side of 5,000 digits":
            text = text.replace(b'"shape": []', b'"shape": [' + b"9" * 5000 + b"]")
        yield Variant(what, file(text))
    shards = dict.fromkeys(header, "model-1.safetensors")

    def index(weight_map: Any) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            os.rename(folder / "model.safetensors", folder / "model-1.safetensors")
            replace_file(folder, "model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode())

        return write

    yield Variant("an index", index(shards), HARMLESS)
    yield Variant("an index that names a file outside", index({**shards, first: "../../etc/passwd.safetensors"}))
    yield Variant("an index that names an absolute file", index({**shards, first: "/etc/x.safetensors"}))
    yield Variant("an index that names a file with a zero byte", index({**shards, first: "a\0b.safetensors"}))
    yield Variant("an index that names a file that is missing", index({**shards, first: "model-2.safetensors"}))
    yield Variant(
        "an index that names a file of 10,000 characters", index({**shards, first: "x" * 10**4 + ".safetensors"})
    )
    yield Variant("an index of nothing", index({}))
    yield Variant("an index that is a list", index([1]))
    yield Variant("an index of numbers", index(dict.fromkeys(header, 7)))
    yield Variant("an index of 100,000 files", index({f"t{i}": f"model-{i}.safetensors" for i in range(10**5)}))


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _stored_int8() -> Iterator[Variant]:
    """The embedded model in bitsandbytes' 8 bits, with scales that do not fit."""
    import numpy as np

    def change(wrong: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            tensors = _tensors()
            for name in [name for name in tensors if name.startswith(_LAYER) and "proj" in name]:
                _, shape, data = tensors[name]
                wide = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
                scales = np.abs(wide).max(axis=1)
                values = np.round(wide / scales[:, None] * 127).astype(np.int8)
                layer = name.removesuffix(".weight")
                tensors[name] = ("I8", shape, values.tobytes())
                scale = ("F32", [len(scales)], scales.tobytes())
                if name.startswith(f"{_LAYER}3.mlp.up") and wrong != "none":
                    if wrong == "missing":
                        continue
                    scale = {
                        "short": ("F32", [8], scales[:8].tobytes()),
                        "one": ("F32", [1], scales[:1].tobytes()),
                        "flat": ("F32", [1, len(scales)], scales.tobytes()),
                        "long": ("F32", [len(scales) + 1], scales.tobytes() + b"\0\0\0\0"),
                        "integers": ("I32", [len(scales)], scales.tobytes()),
                        "NaN": ("F32", [len(scales)], scales[:-1].tobytes() + b"\0\0\xc0\x7f"),
                        "infinite": ("F32", [len(scales)], scales[:-1].tobytes() + b"\0\0\x80\x7f"),
                        "narrow weights": scale,
                        "float weights": scale,
                    }[wrong]
                    if wrong == "narrow weights":
                        tensors[name] = ("I8", [shape[0], shape[1] // 2], values[:, : shape[1] // 2].tobytes())
                    if wrong == "float weights":
                        tensors[name] = ("F32", shape, wide.tobytes())
                tensors[f"{layer}.SCB"] = scale
            write_weights(folder / "model.safetensors", tensors)
            quantized = {"quant_method": "bitsandbytes", "load_in_8bit": True}
            edit("config.json", "quantization_config", value=quantized)(folder)

        return write

    for wrong in ("short", "one", "flat", "long", "integers", "NaN", "infinite", "missing", "narrow weights",
                  "float weights", "none"):  # fmt: skip
        yield Variant(f"8-bit scales: {wrong}", change(wrong), HARMLESS if wrong == "none" else REFUSED)


def _pictures() -> Iterator[Variant]:
    settings: dict[str, tuple[Any, ...]] = {
        "size": (0, -1, 127, 256, 10**6, 10**12, LONG, "x", [128], [128, 64], {"height": 128}, {}, True, 128.0),
        "image_mean": (0.5, [0.5], ["x"] * 3, [math.nan] * 3, [1e308] * 3, [-5.0] * 3, [[1]] * 3, None),
        "image_std": ([0.0] * 3, [math.nan] * 3, [math.inf] * 3, [1e-300] * 3, [-1.0] * 3),
        "rescale_factor": (math.nan, math.inf, 1e300, "x", [1]),
        "resample": (99, -1, "x", [1], 1.5),
        "min_size": (10**6, 10**12, -1, "x", math.nan),
        "do_resize": (False,),
        "do_pad": (False, "x"),
        "unheard_of": (1,),
    }
    for name, values in settings.items():
        for value in values:
            kind = HARMLESS if value is None else REFUSED
            yield Variant(
                f"{name} is {value!r:.30}", edit("processor_config.json", "image_processor", name, value=value), kind
            )
    for count in (0, 1, 63, 65, -1, 10**9, LONG, "x", [64], True, None):
        yield Variant(
            f"num_image_tokens is {count!r:.20}", edit("processor_config.json", "num_image_tokens", value=count)
        )
    for value in (None, [], 7, {}):
        yield Variant(f"image_processor is {value!r}", edit("processor_config.json", "image_processor", value=value))


def list_variants() -> list[Variant]:
    """List all variants, each in its own family's order."""
    from tests.engine.checkpoint.hostile_text import list_templates, list_tokenizers

    families = (_numbers, _shapes, _values, _headers, _stored_int8, list_templates, list_tokenizers, _pictures)
    return [variant for family in families for variant in family()]


def remove(folder: Path) -> None:
    """Remove what a variant wrote."""
    shutil.rmtree(folder, ignore_errors=True)

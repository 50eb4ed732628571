"""Compares a checkpoint with itself before anything is computed: numbers with their ranges, tensors with the numbers.

Checkpoints come from strangers. Compiled code and libraries rely on shapes that fit each other, and a shape that does
not would end in a crash, in an allocation without bounds, or in an answer that is wrong without a word. No torch here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from dsvl_cli.engine.checkpoint.layouts import HEAD, POOLING_HEAD, canonical_name, text_settings, vision_settings
from dsvl_cli.errors import DsvlError

_AGAIN = "copy or download the model again"
_FLOATS = frozenset({"F64", "F32", "BF16", "F16"})
_LANGUAGE, _TOWER, _ALIGNER = "model.language_model.", "model.vision_model.", "model.aligner."
_LAYER = re.compile(r"layers\.(\d+)\.")
_INT8_SCALES = ".SCB"
_CHANNELS = 3

# The largest value of each number; published models stay far below.
_LIMITS = {
    "vocab_size": 2**24,
    "hidden_size": 2**17,
    "intermediate_size": 2**19,
    "num_hidden_layers": 1000,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**12,
    "max_position_embeddings": 2**31 - 1,
    "image_size": 4096,
    "patch_size": 4096,
    "num_channels": _CHANNELS,
    "mlp_dim": 2**19,
    "output_channels": 2**12,
    "window_size": 4096,
}
_EPSILONS = ("rms_norm_eps", "layer_norm_eps")
_SWITCHES = ("attention_bias", "mlp_bias", "vision_use_head", "tie_word_embeddings")


class Entry(Protocol):
    """What the header of a safetensors file says of a tensor."""

    @property
    def dtype(self) -> str:
        """The format's name, such as `BF16`."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        ...


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a `config.json` in which a number is none, or is out of its range.

    What is missing or null has a default.

    Args:
        name: of the model, for the message.
        config: the file.

    Raises:
        DsvlError: with the first one that is wrong.
    """
    image_token = config.get("image_token_id", 0)
    if type(image_token) is not int or image_token < 0:
        raise _wrong(name, "image_token_id", image_token, "a token's id")
    _check_value(name, "tie_word_embeddings", config.get("tie_word_embeddings"))
    if not isinstance(config.get("quantization_config", {}), dict):
        raise _wrong(name, "quantization_config", config["quantization_config"], "an object")
    for part in ("text_config", "vision_config", "high_res_vision_config"):
        settings = config.get(part, {})
        if not isinstance(settings, dict):
            raise _wrong(name, part, settings, "an object")
        for key, value in settings.items():
            _check_value(name, f"{part}.{key}", value)
    _check_rotation(name, config.get("text_config", {}))
    text, vision = text_settings(config), vision_settings(config)
    if text["num_attention_heads"] % text["num_key_value_heads"]:
        raise _wrong(
            name, "text_config.num_key_value_heads", text["num_key_value_heads"], "a divisor of num_attention_heads"
        )
    if text["head_dim"] % 2:
        raise _wrong(name, "text_config.head_dim", text["head_dim"], "even")
    if vision["hidden_size"] % vision["num_attention_heads"]:
        raise _wrong(
            name, "vision_config.num_attention_heads", vision["num_attention_heads"], "a divisor of hidden_size"
        )
    if vision["patch_size"] > vision["image_size"]:
        raise _wrong(name, "vision_config.patch_size", vision["patch_size"], "no larger than image_size")
    if image_token >= text["vocab_size"] and "vocab_size" in config.get("text_config", {}):
        raise _wrong(name, "image_token_id", image_token, f"below the {text['vocab_size']:,} of vocab_size")


def _check_value(name: str, path: str, value: object) -> None:
    key = path.rpartition(".")[2]
    if value is None:
        return
    if key in _LIMITS and not (type(value) is int and 0 < value <= _LIMITS[key]):
        raise _wrong(name, path, value, f"a whole number from 1 to {_LIMITS[key]:,}")
    if key in _EPSILONS and not (_is_number(value) and 0 < value < 1):  # type: ignore[operator]
        raise _wrong(name, path, value, "a number between 0 and 1")
    if key in _SWITCHES and not isinstance(value, bool):
        raise _wrong(name, path, value, "true or false")
    if key == "hidden_act" and not isinstance(value, str):
        raise _wrong(name, path, value, "a text")


def _check_rotation(name: str, text: Mapping[str, Any]) -> None:
    for key in ("rope_parameters", "rope_scaling"):
        rope = text.get(key)
        if rope is not None and not isinstance(rope, dict):
            raise _wrong(name, f"text_config.{key}", rope, "an object")
        for kind in ("rope_type", "type"):
            if rope and not isinstance(rope.get(kind, ""), str):
                raise _wrong(name, f"text_config.{key}.{kind}", rope[kind], "a text")
        _check_theta(name, f"text_config.{key}.rope_theta", (rope or {}).get("rope_theta"))
    _check_theta(name, "text_config.rope_theta", text.get("rope_theta"))


def _check_theta(name: str, path: str, theta: object) -> None:
    if theta is not None and not (_is_number(theta) and theta >= 1):  # type: ignore[operator]
        raise _wrong(name, path, theta, "a number of at least 1")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _wrong(name: str, path: str, value: object, wanted: str) -> DsvlError:
    return DsvlError(f"the config.json of {name} is damaged: {path} is {_shorten(value)}; it must be {wanted}", _AGAIN)


def _shorten(value: object) -> str:
    text = json.dumps(value, default=str) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return text if len(text) <= 60 else f"{text[:60]}…"


def check_tensors(name: str, config: Mapping[str, Any], tensors: Iterable[tuple[str, Entry]]) -> None:
    """Refuse tensors whose shape or dtype is not what the configuration says.

    What is quantized has the shapes of its format, and names that are not known are of no interest: a missing tensor is
    noticed by the loaders.

    Args:
        name: of the model, for the message.
        config: `config.json`, see `check_config`.
        tensors: stored names and what the headers say.

    Raises:
        DsvlError: with the first tensor that does not fit.
    """
    entries = {canonical_name(stored): entry for stored, entry in tensors}
    quantized = config.get("quantization_config")
    wanted = _Shapes(config)
    for tensor, entry in entries.items():
        if tensor.endswith(_INT8_SCALES):
            layer = tensor.removesuffix(_INT8_SCALES)
            shape, dtypes = wanted.find(f"{layer}.weight"), frozenset({"F32"})
            shape = shape and shape[:1]
        elif f"{tensor.removesuffix('.weight')}{_INT8_SCALES}" in entries:
            shape, dtypes = wanted.find(tensor), frozenset({"I8"})
        elif quantized and tensor.endswith("proj.weight") and entry.dtype not in _FLOATS:
            if entry.dtype == "I8" and quantized.get("quant_method") == "bitsandbytes":
                raise DsvlError(f"{name} is damaged: {tensor} has no scales", _AGAIN)
            continue  # in 4 bits, or torchao's: see `check_packed`
        else:
            shape, dtypes = wanted.find(tensor), _FLOATS
        if shape is None:
            continue
        if entry.shape != shape:
            found, said = _write(entry.shape), _write(shape)
            raise DsvlError(f"{name} is damaged: {tensor} is {found}, but config.json says {said}", _AGAIN)
        if entry.dtype not in dtypes:
            raise DsvlError(f"{name} is damaged: {tensor} is stored as {entry.dtype}", _AGAIN)


def _write(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[:6])) or "one number"


class _Shapes:
    """The shapes of the tensors of a DeepSeek-VL, by current name."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        text, vision = text_settings(config), vision_settings(config)
        hidden, wide = text["hidden_size"], text["intermediate_size"]
        inner, outer = (text[heads] * text["head_dim"] for heads in ("num_attention_heads", "num_key_value_heads"))
        self._layers = {_LANGUAGE: text["num_hidden_layers"], _TOWER: vision["num_hidden_layers"]}
        vocabulary = (text["vocab_size"], hidden)
        self._shapes: dict[str, tuple[int, ...]] = {
            HEAD: vocabulary,
            f"{_LANGUAGE}embed_tokens.weight": vocabulary,
            f"{_LANGUAGE}norm.weight": (hidden,),
        }
        layer = f"{_LANGUAGE}layers.*."
        for part, shape in {
            "self_attn.q_proj": (inner, hidden), "self_attn.k_proj": (outer, hidden),
            "self_attn.v_proj": (outer, hidden), "self_attn.o_proj": (hidden, inner),
            "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden), "mlp.down_proj": (hidden, wide),
            "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
        }.items():  # fmt: skip
            self._shapes[f"{layer}{part}.weight"] = shape
        self._add_tower(vision)
        if config.get("model_type") == "deepseek_vl":  # the aligner of the 7b has two inputs
            self._add(f"{_ALIGNER}linear1", (hidden, vision["hidden_size"]))
            self._add(f"{_ALIGNER}linear2", (hidden, hidden))

    def _add_tower(self, vision: Mapping[str, Any]) -> None:
        seen, wide, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
        self._add(f"{_TOWER}embeddings.patch_embedding", (seen, _CHANNELS, patch, patch))
        self._shapes[f"{_TOWER}embeddings.position_embedding.weight"] = ((vision["image_size"] // patch) ** 2, seen)
        self._add(f"{_TOWER}post_layernorm", (seen,))
        layer = f"{_TOWER}encoder.layers.*."
        for part in ("q", "k", "v", "out"):
            self._add(f"{layer}self_attn.{part}_proj", (seen, seen))
        self._add(f"{layer}mlp.fc1", (wide, seen))
        self._add(f"{layer}mlp.fc2", (seen, wide))
        for part in ("layer_norm1", "layer_norm2"):
            self._add(f"{layer}{part}", (seen,))

    def _add(self, module: str, shape: tuple[int, ...]) -> None:
        self._shapes[f"{module}.weight"], self._shapes[f"{module}.bias"] = shape, shape[:1]

    def find(self, tensor: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, or None if its name is not known."""
        return self._shapes.get(_LAYER.sub("layers.*.", tensor, count=1))

    def count(self) -> int:
        """Return the number of values of all tensors but the head, which may share those of the embeddings."""
        total = 0
        for name, shape in self._shapes.items():
            layers = next((count for part, count in self._layers.items() if name.startswith(f"{part}")), 1)
            total += math.prod(shape) * (layers if "layers.*." in name else 1)
        return total - math.prod(self._shapes[HEAD])


def has_unknown_names(config: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether some tensors have other names than those of the current layout: the files may be in one of their own."""
    wanted = _Shapes(config)
    parts = (name.replace(_INT8_SCALES, ".weight") for name in names if not name.startswith(POOLING_HEAD))
    return any(wanted.find(name) is None for name in parts)


def count_parameters(config: Mapping[str, Any]) -> int:
    """Return how many parameters the language model of a configuration has, with the vision tower, without the head."""
    return _Shapes(config).count()

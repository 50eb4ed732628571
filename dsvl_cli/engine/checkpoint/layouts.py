"""Reads the checkpoint layouts of all transformers releases, normalized to that of the current one.

The public checkpoints were written by transformers 4.55; 4.57 and 5.0 write almost the same, and later ones differ:

    what                    up to 5.0                                    later
    tensors of SigLIP       model.vision_model.vision_model.*            model.vision_model.*
    dtype in config.json    torch_dtype (4.55)                           dtype
    rotary positions        rope_theta, rope_scaling (up to 4.57)        rope_parameters
    image processor         preprocessor_config.json (up to 4.57)        processor_config.json, `image_processor`
    special tokens          special_tokens_map.json as well (to 4.57)    tokenizer_config.json
    chat template           chat_template.jinja; older files: in chat_template.json or tokenizer_config.json

In a model saved without its head (`DeepseekVLModel`), tensor names lack the leading `model.`. Settings that are missing
in a file have the default of the transformers class that reads it. No torch here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dsvl_cli.errors import DsvlError

HEAD = "lm_head.weight"
EMBEDDINGS = "model.language_model.embed_tokens.weight"
# May be in the configuration but not in the file, or the other way round: DeepSeek-VL does not use SigLIP's pooling
# head.
POOLING_HEAD = "model.vision_model.head."
# The small files that a model's answers depend on.
SETTINGS_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "processor_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "chat_template.json",
)

_LARGEST_TEXT = 16 * 2**20  # bytes
_DOWNLOAD = "copy or download the model again"
_NESTED = re.compile(r"^(model\.)?vision_model\.vision_model\.")
_HEADLESS = re.compile(r"^(?=(?:language_model|vision_model|aligner|high_res_vision_\w+)(?:\.|$))")

# From LlamaConfig.
_TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "mlp_bias": False,
}
# From SiglipVisionConfig.
_VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_ROPE_THETA = 10000.0


def canonical_name(stored: str) -> str:
    """Return a tensor's current name; unknown names are returned unchanged."""
    nested = _NESTED.sub("model.vision_model.", stored)
    return _HEADLESS.sub("model.", nested)


def text_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's `text_config` as the current release writes it, with all defaults filled in.

    `rope_parameters` has `rope_theta` and `rope_type`, whatever the file calls them. Values that are null, or not
    numbers where numbers are expected, count as missing.

    Args:
        config: `config.json`.
    """
    text = _filled(config.get("text_config"), _TEXT_DEFAULTS)
    heads, head_dim = text.get("num_key_value_heads"), text.get("head_dim")
    text["num_key_value_heads"] = heads if _is_size(heads) else text["num_attention_heads"]
    text["head_dim"] = head_dim if _is_size(head_dim) else text["hidden_size"] // text["num_attention_heads"]
    scaling, theta = text.pop("rope_scaling", None), text.pop("rope_theta", None)
    rope = dict(text.get("rope_parameters") or scaling or {})
    rope["rope_theta"] = float(rope.get("rope_theta") or theta or _ROPE_THETA)
    rope["rope_type"] = rope.get("rope_type") or rope.pop("type", None) or "default"
    text["rope_parameters"] = rope
    return text


def vision_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's `vision_config` with all defaults filled in; see `text_settings`."""
    return _filled(config.get("vision_config"), _VISION_DEFAULTS)


def may_head_be_tied(config: Mapping[str, Any]) -> bool:
    """Whether the output head shares the embeddings' weights if the files have no separate head.

    Up to 4.57 the configuration does not always mark an untied head as such, so what is stored decides.
    """
    return config.get("tie_word_embeddings") is not False


def _filled(part: Mapping[str, Any] | None, defaults: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in (part or {}).items() if value is not None}
    wrong = {
        name for name, value in defaults.items() if type(value) is int and name in given and not _is_size(given[name])
    }
    return {**defaults, **{name: value for name, value in given.items() if name not in wrong}}


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def read_tokenizer_settings(folder: Path) -> dict[str, Any]:
    """Read `tokenizer_config.json`, extended with what is only in `special_tokens_map.json`."""
    return {**read_object(folder / "special_tokens_map.json"), **read_object(folder / "tokenizer_config.json")}


def read_image_settings(folder: Path) -> dict[str, Any]:
    """Read the image processor's settings from `processor_config.json`, or else from `preprocessor_config.json`.

    Raises:
        DsvlError: neither has them.
    """
    nested = read_object(folder / "processor_config.json").get("image_processor")
    settings = nested if nested is not None else read_object(folder / "preprocessor_config.json")
    if not isinstance(settings, dict) or not settings:
        raise DsvlError(f"{folder} has no usable image processor", "download it again")
    return settings


def read_num_image_tokens(folder: Path) -> int | None:
    """Read the number of tokens per picture, or return None if it is not in the files."""
    value = read_object(folder / "processor_config.json").get("num_image_tokens")
    return value if isinstance(value, int) and value > 0 else None


def find_chat_template(folder: Path) -> str | None:
    """Return the chat template from any of the files that transformers releases put it in, or None.

    Of several named templates, the default is used.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return _read_text(file)
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        template = read_object(folder / name).get("chat_template")
        if isinstance(template, list):
            named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
            template = named.get("default")
        if isinstance(template, str):
            return template
    return None


def read_end_ids(folder: Path, control_ids: Collection[int]) -> frozenset[int]:
    """Read the end token ids from `generation_config.json`, if it exists.

    The public checkpoints have LlamaConfig's default, 2, which is an ordinary token in DeepSeek's vocabulary: `#`.
    Such files are marked as derived from the model's configuration, and only their control tokens count.

    Args:
        folder: the checkpoint's.
        control_ids: of the tokenizer's control tokens.
    """
    settings = read_object(folder / "generation_config.json")
    ends = settings.get("eos_token_id")
    listed = [end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int]
    derived = settings.get("_from_model_config") is True
    return frozenset(end for end in listed if not derived or end in control_ids)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; a missing file counts as an empty one.

    Raises:
        DsvlError: it cannot be read, or is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise DsvlError(f"{path} is damaged: it is not JSON", _DOWNLOAD) from error
    if not isinstance(value, dict):
        raise DsvlError(f"{path} is damaged: it is not a JSON object", _DOWNLOAD)
    return value


def _read_text(path: Path) -> str:
    """Read a text file, with or without a byte order mark."""
    try:
        if (size := path.stat().st_size) > _LARGEST_TEXT:
            raise DsvlError(f"{path} is damaged: it has {size:,} bytes", _DOWNLOAD)
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DsvlError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error
    except UnicodeDecodeError as error:
        raise DsvlError(f"{path} is damaged: it is not UTF-8", _DOWNLOAD) from error

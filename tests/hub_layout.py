"""Write a checkpoint as an older transformers lays it out: 4.55.4, 4.57.3 or 5.0.0.

From a folder of today's, of the 1.3b's class or the 7b's, `write_hub_layout` makes every file that such a release
writes of the same model, byte for byte (seen with all three); tests/foreign compares it with what 4.55.4 really wrote.
The template is the source's own. With several shards only the limit of one is chosen otherwise: so that there are as
many as asked for.

With `published` it is what transformers' converter made of DeepSeek's originals under 4.55.4: the head is untied and
`config.json` does not say so, the ids of its text config are LlamaConfig's, and the tokenizer is a LlamaTokenizerFast.
What deepseek-community/deepseek-vl-1.3b-chat has otherwise: DeepSeek's weights, in float16; `gelu` as SigLIP's
activation; 4.53.0.dev0 as the writer, whose files are those of 4.55.4 in all else; and in its tokenizer special tokens
that are `normalized`, and thirteen letters more that were added and are not special (tests/engine/test_foreign_files.py
has such a one).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors

Version = Literal["4.55", "4.57", "5.0"]
Tensors = dict[str, torch.Tensor]

_FULL_VERSIONS: Mapping[Version, str] = {"4.55": "4.55.4", "4.57": "4.57.3", "5.0": "5.0.0"}
_HEAD, _EMBEDDINGS = "lm_head.weight", "model.language_model.embed_tokens.weight"
_UNLIMITED = 1000000000000000019884624838656  # as transformers writes that a tokenizer has no longest text
_LLAMA_IDS = {"bos_token_id": 1, "eos_token_id": 2}
_TOKEN_FIELDS = ("content", "lstrip", "normalized", "rstrip", "single_word")


def write_hub_layout(
    source: Path,
    target: Path,
    *,
    version: Version = "4.55",
    dtype: torch.dtype = torch.bfloat16,
    shards: int = 1,
    tied: bool = False,
    published: bool = False,
) -> Path:
    """Write a checkpoint under the names of an older release; gives the folder.

    Args:
        source: a folder of today's.
        target: the new folder.
        version: of the release.
        dtype: of the weights.
        shards: so many files of weights, with an index where there are several.
        tied: the head shares the weights of the embeddings and is not stored.
        published: as DeepSeek's converter did it, not somebody who saved a model that he had loaded.
    """
    if published and (tied or version == "5.0"):
        raise ValueError("the published ones are untied, and 5.0 writes another tokenizer in place of theirs")
    target.mkdir(parents=True, exist_ok=True)
    config, processor, settings = (
        json.loads((source / name).read_text(encoding="utf-8"))
        for name in ("config.json", "processor_config.json", "tokenizer_config.json")
    )
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    files = {
        "config.json": _config(config, version, dtype, tied=tied, published=published),
        "generation_config.json": _generation_config(config, version, published=published),
        "tokenizer_config.json": _tokenizer_config(settings, tokenizer, processor, version, published=published),
        **_processor_files(processor, version),
    }
    if version != "5.0":
        files["special_tokens_map.json"] = _special_tokens_map(settings, tokenizer, published=published)
    for name, value in files.items():
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        (target / name).write_text(f"{text}\n", encoding="utf-8")
    _write_tokenizer(tokenizer, settings["bos_token"], target / "tokenizer.json", published=published)
    shutil.copyfile(source / "chat_template.jinja", target / "chat_template.jinja")
    _write_weights(_tensors(source, dtype, tied=tied), target, shards, config)
    return target


def _config(
    source: Mapping[str, Any], version: Version, dtype: torch.dtype, *, tied: bool, published: bool
) -> dict[str, Any]:
    is_new = version == "5.0"
    text: dict[str, Any] = dict(source["text_config"])
    theta = text.pop("rope_parameters")["rope_theta"]
    text.pop("tie_word_embeddings", None)
    if published:
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            text.pop(name, None)
    elif not is_new and text.get("pad_token_id") is None:
        text.pop("pad_token_id", None)
    if is_new:
        text |= {
            "rope_parameters": {"rope_theta": theta, "rope_type": "default"}, "tie_word_embeddings": tied,
        }  # fmt: skip
    else:
        text |= {"rope_theta": theta, "rope_scaling": None, **({"tie_word_embeddings": True} if tied else {})}
    top: dict[str, Any] = {
        name: source[name]
        for name in ("architectures", "image_token_id", "model_type", "vision_config", "high_res_vision_config")
        if name in source
    }
    if is_new or not (tied or published):
        top["tie_word_embeddings"] = tied
    top["torch_dtype" if version == "4.55" else "dtype"] = str(dtype).removeprefix("torch.")
    return {**top, "text_config": text, "transformers_version": _FULL_VERSIONS[version]}


def _generation_config(source: Mapping[str, Any], version: Version, *, published: bool) -> dict[str, Any]:
    text = _LLAMA_IDS if published else source["text_config"]
    ids = {name: text.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        "_from_model_config": True,
        **{name: token_id for name, token_id in ids.items() if token_id is not None},
        **({"output_attentions": False, "output_hidden_states": False, "use_cache": True} if version == "5.0" else {}),
        "transformers_version": _FULL_VERSIONS[version],
    }


def _processor_files(source: Mapping[str, Any], version: Version) -> dict[str, dict[str, Any]]:
    images = {**source["image_processor"], "do_convert_rgb": None}
    if version == "4.55":
        images.pop("do_pad", None)
    processor = {"num_image_tokens": source["num_image_tokens"], "processor_class": source["processor_class"]}
    if version == "5.0":
        return {"processor_config.json": {**processor, "image_processor": images}}
    return {
        "processor_config.json": processor,
        "preprocessor_config.json": {**images, "processor_class": source["processor_class"]},
    }


def _tokenizer_config(
    source: Mapping[str, Any], tokenizer: Tokenizer, processor: Mapping[str, Any], version: Version, *, published: bool
) -> dict[str, Any]:
    image = source["image_token"]
    common = {
        **{role: source[role] for role in ("bos_token", "eos_token", "pad_token")},
        "image_token": image,
        "model_max_length": _UNLIMITED,
        "processor_class": processor["processor_class"],
    }
    if version == "5.0":
        return {**common, "backend": "tokenizers", "extra_special_tokens": [], "tokenizer_class": "TokenizersBackend"}
    old = {
        **common,
        "added_tokens_decoder": {
            str(token_id): {**{name: getattr(token, name) for name in _TOKEN_FIELDS}, "special": token.special}
            for token_id, token in tokenizer.get_added_tokens_decoder().items()
        },
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": {"image_token": image},
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if not published:
        return old
    return {
        **old,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": None,
        "additional_special_tokens": [image],
        "extra_special_tokens": {"image_token": image, "pad_token": source["pad_token"]},
        "legacy": True,
        "model_max_length": 16384,
        "tokenizer_class": "LlamaTokenizerFast",
        "unk_token": None,
        "use_default_system_prompt": False,
    }


def _special_tokens_map(source: Mapping[str, Any], tokenizer: Tokenizer, *, published: bool) -> dict[str, Any]:
    names = {role: source[role] for role in ("bos_token", "eos_token", "image_token", "pad_token")}
    if not published:
        return names
    tokens = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    ends = {
        role: {name: getattr(tokens[names[role]], name) for name in _TOKEN_FIELDS}
        for role in ("bos_token", "eos_token")
    }
    return {**names, **ends, "additional_special_tokens": [names["image_token"]]}


def _write_tokenizer(tokenizer: Tokenizer, bos: str, path: Path, *, published: bool) -> None:
    """Write the tokenizer, whose post-processor begins every text."""
    second = ":1" if published else ""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos}{second} $B{second}",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
    tokenizer.save(str(path))


def _tensors(source: Path, dtype: torch.dtype, *, tied: bool) -> Tensors:
    tensors: Tensors = {}
    for file in sorted(source.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            nested = name.replace("model.vision_model.", "model.vision_model.vision_model.", 1)
            tensors[nested] = tensor.to(dtype).contiguous()
    if tied:
        tensors.pop(_HEAD, None)
    else:
        tensors.setdefault(_HEAD, tensors[_EMBEDDINGS].clone())
    return tensors


def _write_weights(tensors: Tensors, folder: Path, shards: int, config: Mapping[str, Any]) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    order = [name for name in _module_order(config) if name in tensors]
    assert set(order) == set(tensors), "the module of that release has other tensors"
    total = sum(tensor.nbytes for tensor in tensors.values())
    steps = (_fill(order, tensors, total * step // (100 * shards)) for step in count(100))
    files = next(parts for parts in steps if len(parts) <= shards)
    assert len(files) == shards, "its tensors do not fill so many files"
    index: dict[str, Any] = {
        "metadata": {
            "total_parameters": sum(tensor.numel() for tensor in tensors.values()), "total_size": total,
        },
        "weight_map": {},
    }  # fmt: skip
    for number, names in enumerate(files, 1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, {"format": "pt"})
        index["weight_map"].update(dict.fromkeys(names, file))
    text = json.dumps(index, indent=2, sort_keys=True)
    (folder / "model.safetensors.index.json").write_text(f"{text}\n", encoding="utf-8")


def _module_order(config: Mapping[str, Any]) -> Iterator[str]:
    """Give the names in the order in which files are filled: that of the module, and not that of the alphabet."""
    from transformers import DeepseekVLConfig, DeepseekVLHybridConfig

    from dsvl_cli.engine.network.model_class import find_model_class

    kinds: dict[str, Any] = {"deepseek_vl": DeepseekVLConfig, "deepseek_vl_hybrid": DeepseekVLHybridConfig}
    with torch.device("meta"):
        module = find_model_class(config["model_type"])(kinds[config["model_type"]].from_dict(dict(config)))
    for name in module.state_dict():
        yield name.replace("model.vision_model.", "model.vision_model.vision_model.", 1)


def _fill(order: Sequence[str], tensors: Tensors, limit: int) -> list[list[str]]:
    """Begin another file whenever the next tensor would make one larger than a limit in bytes."""
    files: list[list[str]] = [[]]
    size = 0
    for name in order:
        if files[-1] and size + tensors[name].nbytes > limit:
            files.append([])
            size = 0
        files[-1].append(name)
        size += tensors[name].nbytes
    return files

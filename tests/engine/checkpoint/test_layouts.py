"""What every release of transformers wrote, brought to one view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.engine.checkpoint.layouts import (
    are_ends_derived,
    canonical_name,
    find_chat_template,
    is_head_tied,
    read_end_ids,
    read_image_settings,
    read_num_image_tokens,
    read_object,
    read_tokenizer_settings,
    text_settings,
    vision_settings,
)
from dsvl_cli.errors import DsvlError


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("model.vision_model.vision_model.encoder.layers.3.fc1.bias", "model.vision_model.encoder.layers.3.fc1.bias"),
        ("model.vision_model.encoder.layers.3.fc1.bias", "model.vision_model.encoder.layers.3.fc1.bias"),
        ("model.language_model.norm.weight", "model.language_model.norm.weight"),
        ("model.high_res_vision_model.vision_encoder.pos", "model.high_res_vision_model.vision_encoder.pos"),
        ("vision_model.vision_model.post_layernorm.bias", "model.vision_model.post_layernorm.bias"),
        ("vision_model.post_layernorm.bias", "model.vision_model.post_layernorm.bias"),
        ("language_model.layers.0.mlp.up_proj.weight.SCB", "model.language_model.layers.0.mlp.up_proj.weight.SCB"),
        ("high_res_vision_alpha", "model.high_res_vision_alpha"),
        ("aligner.linear1.bias", "model.aligner.linear1.bias"),
        ("lm_head.weight", "lm_head.weight"),
        ("who.knows", "who.knows"),
    ],
)  # fmt: skip
def test_names_of_tensors(stored: str, name: str) -> None:
    assert canonical_name(stored) == name
    assert canonical_name(name) == name


@pytest.mark.parametrize(
    "text",
    [
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
    ],
)
def test_positions(text: dict[str, Any]) -> None:
    assert text_settings({"text_config": text})["rope_parameters"] == {"rope_theta": 5e5, "rope_type": "default"}


def test_scaled_positions_are_seen_under_either_name() -> None:
    for scaling in ({"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0}):
        text = text_settings({"text_config": {"rope_theta": 1e4, "rope_scaling": scaling}})
        assert text["rope_parameters"]["rope_type"] == "linear"


def test_what_is_left_out_is_as_in_transformers() -> None:
    from transformers import LlamaConfig, SiglipVisionConfig

    llama, siglip = LlamaConfig(), SiglipVisionConfig()
    text, vision = text_settings({}), vision_settings({"vision_config": None})
    for name, value in text.items():
        if name not in ("rope_parameters", "head_dim"):
            assert value == getattr(llama, name), name
    assert text["head_dim"] == llama.hidden_size // llama.num_attention_heads
    assert isinstance(llama.rope_parameters, dict)
    assert text["rope_parameters"]["rope_theta"] == llama.rope_parameters["rope_theta"]
    assert {name: getattr(siglip, name) for name in vision} == vision


def test_the_size_of_a_head_follows_from_the_others() -> None:
    text = text_settings({"text_config": {"hidden_size": 96, "num_attention_heads": 3, "head_dim": None}})
    assert (text["head_dim"], text["num_key_value_heads"]) == (32, 3)


@pytest.mark.parametrize(("config", "tied"), [({}, True), ({"tie_word_embeddings": False}, False)])
def test_the_head_is_tied_unless_the_file_says_no(config: dict[str, Any], tied: bool) -> None:
    assert is_head_tied(config) is tied


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def test_the_image_processor_stands_in_either_file(tmp_path: Path) -> None:
    old = write(tmp_path / "old", preprocessor_config={"size": 3}, processor_config={"num_image_tokens": 5})
    new = write(tmp_path / "new", processor_config={"image_processor": {"size": 3}, "num_image_tokens": 5})
    both = write(tmp_path / "both", processor_config={"image_processor": {"size": 3}}, preprocessor_config={"size": 4})
    assert [read_image_settings(folder) for folder in (old, new, both)] == [{"size": 3}] * 3
    assert [read_num_image_tokens(folder) for folder in (old, new, both)] == [5, 5, None]
    with pytest.raises(DsvlError, match="image processor"):
        read_image_settings(write(tmp_path / "none", processor_config={}))


def test_special_tokens_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, special_tokens_map={"bos_token": {"content": "<a>"}, "eos_token": "<old>"})
    write(tmp_path, tokenizer_config={"eos_token": "<b>"})
    assert read_tokenizer_settings(tmp_path) == {"bos_token": {"content": "<a>"}, "eos_token": "<b>"}


def test_the_chat_template_is_found_in_every_place(tmp_path: Path) -> None:
    assert find_chat_template(tmp_path) is None
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "named"}]
    write(tmp_path, tokenizer_config={"chat_template": named})
    assert find_chat_template(tmp_path) == "named"
    write(tmp_path, chat_template={"chat_template": "json"})
    assert find_chat_template(tmp_path) == "json"
    (tmp_path / "chat_template.jinja").write_text("jinja", encoding="utf-8")
    assert find_chat_template(tmp_path) == "jinja"


@pytest.mark.parametrize(("ends", "ids"), [(5, {5}), ([5, 6], {5, 6}), (None, set()), ("x", set())])
def test_the_ends_of_an_answer(tmp_path: Path, ends: object, ids: set[int]) -> None:
    assert read_end_ids(tmp_path) == set()
    assert read_end_ids(write(tmp_path, generation_config={"eos_token_id": ends})) == ids


def test_ends_that_nobody_wrote(tmp_path: Path) -> None:
    assert not are_ends_derived(tmp_path)
    assert not are_ends_derived(write(tmp_path, generation_config={"eos_token_id": 2}))
    assert are_ends_derived(write(tmp_path, generation_config={"_from_model_config": True, "eos_token_id": 2}))


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe{", b"[" * 100_000])
def test_damaged_files_are_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "some.json"
    file.write_bytes(content)
    with pytest.raises(DsvlError, match=r"some\.json is damaged"):
        read_object(file)
    file.write_bytes(b"\xef\xbb\xbf{}")
    assert read_object(file) == {}

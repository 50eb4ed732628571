"""DeepSeek's own repositories, typed or on the disk: the error names what to load instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.cli import main
from dsvl_cli.engine.checkpoint.find import ALIASES, EMBEDDED, check_folder, find_checkpoint, resolve_model
from dsvl_cli.engine.checkpoint.originals import ORIGINALS, find_original, suggest_alias
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.engine.progress import Silence
from dsvl_cli.errors import DsvlError, UsageError
from tests.engine.files import make_files, write_folder
from tests.engine.hub import COMMIT

CONVERSIONS = {alias: repo for alias, repo in ALIASES.items() if alias != EMBEDDED}

# What tells the sizes apart in the published files: the 7b leaves out what LlamaConfig has by default.
CONFIGS: dict[str, dict[str, Any]] = {
    "1.3b": {
        "architectures": ["MultiModalityCausalLM"],
        "aligner_config": {"cls": "MlpProjector", "params": {"depth": 2, "input_dim": 1024, "n_embed": 2048}},
        "language_config": {"hidden_size": 2048, "model_type": "llama", "num_hidden_layers": 24, "vocab_size": 102400},
        "model_type": "multi_modality",
        "torch_dtype": "float16",
        "vision_config": {"cls": "CLIPVisionTower", "params": {"image_size": 384}},
    },
    "7b": {
        "architectures": ["MultiModalityCausalLM"],
        "aligner_config": {"cls": "MlpProjector", "params": {"depth": 2, "input_dim": 1024, "n_embed": 4096}},
        "language_config": {"model_type": "llama", "num_hidden_layers": 30, "vocab_size": 102400},
        "model_type": "multi_modality",
        "torch_dtype": "float16",
        "vision_config": {"cls": "HybridVisionTower", "params": {"high_res_cfg": {"image_size": 1024}}},
    },
}


def write(folder: Path, config: dict[str, Any]) -> Path:
    return write_folder(folder, make_files(config_json=json.dumps(config).encode()))


def refusal(folder: Path) -> tuple[str, str]:
    with pytest.raises(DsvlError) as caught:
        check_folder(str(folder), folder)
    assert "\n" not in f"{caught.value.message}{caught.value.hint}"
    return caught.value.message, str(caught.value.hint)


def named(hint: str) -> set[str]:
    """The aliases and conversions that a hint names."""
    words = {word.strip("():,") for word in hint.split()}
    return {name for pair in CONVERSIONS.items() for name in pair if name in words}


def both(*aliases: str) -> set[str]:
    return {name for alias in aliases for name in (alias, CONVERSIONS[alias])}


def test_the_four_are_those_that_dsvl_has_names_for() -> None:
    assert {one.alias: one.conversion for one in ORIGINALS} == CONVERSIONS


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda one: one.name)
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_a_typed_id_is_answered_at_once(original: Any, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsvl_cli.engine.checkpoint.find.hub", None)  # neither the cache nor the hub is asked
    with pytest.raises(DsvlError) as caught:
        find_checkpoint(LoadOptions(model=change(f"deepseek-ai/{original.name}")), Silence())
    assert caught.value.message == (
        f"deepseek-ai/{original.name} is DeepSeek's original, in a form that transformers does not run"
    )
    assert caught.value.hint == f"its conversion is {original.conversion}: --model {original.alias}"
    assert ALIASES[original.alias] == original.conversion


@pytest.mark.parametrize(
    "model", ["deepseek-ai/deepseek-vl2", "deepseek-ai/Janus-Pro-7B", "deepseek-community/deepseek-vl-7b-chat", "7b"]
)
def test_other_ids_are_none_of_them(model: str) -> None:
    assert find_original(model) is None


def test_a_revision_may_hold_something_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "dsvl_cli.engine.checkpoint.find.hub.find_snapshot", lambda *_: write_folder(tmp_path, make_files())
    )
    options = LoadOptions(model="deepseek-ai/deepseek-vl-7b-chat", revision="refs/pr/1")
    assert find_checkpoint(options, Silence()).model_type == "deepseek_vl"


@pytest.mark.parametrize(("name", "alias"), [("deepseek-vl-7b-chat", "7b"), ("DeepSeek-VL-1.3b-base", "1.3b-base")])
def test_a_name_without_its_owner_is_suggested_an_alias(name: str, alias: str) -> None:
    assert suggest_alias(name) == alias
    with pytest.raises(UsageError) as caught:
        resolve_model(name)
    assert f"did you mean {alias}?" in str(caught.value.hint)


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda one: one.name)
@pytest.mark.parametrize("form", ["deepseek-vl-{}-{}", "DeepSeek-VL-{}-{}", "my_{}_{}_copy", "{1}-{0}"])
def test_a_folder_says_by_its_name_and_its_config_which_it_is(tmp_path: Path, original: Any, form: str) -> None:
    folder = write(tmp_path / form.format(original.size.upper(), original.kind), CONFIGS[original.size])
    message, hint = refusal(folder)
    assert str(folder) in message
    assert "original form" in message
    assert named(hint) == both(original.alias)


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda one: one.name)
def test_a_snapshot_in_the_hub_s_cache_says_it_by_its_repository(tmp_path: Path, original: Any) -> None:
    folder = tmp_path / f"models--deepseek-ai--{original.name}" / "snapshots" / COMMIT
    assert named(refusal(write(folder, CONFIGS[original.size]))[1]) == both(original.alias)


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize("name", ["model", "vl-chat-or-base", "7b", "1.3b"])
def test_without_base_or_chat_in_the_name_both_are_named(tmp_path: Path, size: str, name: str) -> None:
    """And the layers say more about the size than a name."""
    assert named(refusal(write(tmp_path / name, CONFIGS[size]))[1]) == both(size, f"{size}-base")


@pytest.mark.parametrize("part", ["language_config", "vision_config"])
@pytest.mark.parametrize("size", CONFIGS)
def test_either_part_of_the_config_tells_the_size(tmp_path: Path, size: str, part: str) -> None:
    config = {name: value for name, value in CONFIGS[size].items() if name in (part, "model_type")}
    assert named(refusal(write(tmp_path / "chat", config))[1]) == both(size)


@pytest.mark.parametrize("language", [None, [], {}, {"num_hidden_layers": [24]}, {"num_hidden_layers": 26}])
def test_the_name_tells_what_the_config_does_not(tmp_path: Path, language: Any) -> None:
    config = {"model_type": "multi_modality", "language_config": language, "vision_config": {"cls": ["?"]}}
    assert named(refusal(write(tmp_path / "deepseek-vl-7b-base", config))[1]) == both("7b-base")
    message, hint = refusal(write(tmp_path / "model", config))
    assert "'multi_modality'" in message
    assert named(hint) >= {"1.3b", "7b"}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("model", {"gen_vision_config": {}, "gen_head_config": {}}),
        ("model", {"vision_gen_enc_config": {}}),
        ("Janus-1.3B", {}),
    ],
)
def test_janus_is_no_deepseek_vl(tmp_path: Path, name: str, more: dict[str, Any]) -> None:
    message, _ = refusal(write(tmp_path / name, CONFIGS["1.3b"] | more))
    assert "'multi_modality'" in message
    assert "original form" not in message


def test_the_command_says_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = str(Path(__file__).parents[3] / "examples" / "red-circle.png")
    assert main(["describe", picture, "--model", "DeepSeek-AI/deepseek-vl-7b-base"]) == 1
    err = capsys.readouterr().err
    assert "deepseek-ai/deepseek-vl-7b-base is DeepSeek's original" in err
    assert "--model 7b-base" in err
    assert (
        main(["quantize", str(write(tmp_path / "x-chat", CONFIGS["7b"])), str(tmp_path / "out"), "--format", "bnb-nf4"])
        == 1
    )
    assert "deepseek-community/deepseek-vl-7b-chat (--model 7b)" in capsys.readouterr().err

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.checkpoint.find import (
    ALIASES,
    EMBEDDED_FOLDER,
    check_folder,
    find_checkpoint,
    is_base_name,
    read_header,
    resolve_model,
)
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.errors import DsvlError, UsageError
from tests.engine.files import CONFIG, make_files, make_sharded_files, make_weights, write_folder
from tests.engine.hub import COMMIT

if TYPE_CHECKING:
    from dsvl_cli.engine.progress import Choice


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def choice(self, choice: Choice) -> None:
        raise AssertionError(choice)

    def progress(self, what: str, done: int, total: int) -> None:
        raise AssertionError(what)


# --- names


def test_a_folder_that_hides_a_model_of_the_hub_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "org" / "model", make_files())
    for name, announced in (("org/model", True), ("./org/model", False), (str(tmp_path / "org/model"), False)):
        ear = Ear()
        find_checkpoint(LoadOptions(name), ear)
        assert any("in place of the hub's model" in note for note in ear.notes) == announced


def test_a_name_is_an_alias_a_folder_or_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "7b").mkdir()
    assert resolve_model("tiny") == EMBEDDED_FOLDER
    assert resolve_model("1.3B") == ALIASES["1.3b"] == "deepseek-community/deepseek-vl-1.3b-chat"
    assert resolve_model("7b") == ALIASES["7b"]
    assert resolve_model("./7b") == tmp_path / "7b"
    assert resolve_model("org/model") == tmp_path / "org" / "model"
    assert resolve_model("org/other") == "org/other"


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere-at-all", "a/b/c", "nowhere/", "c:\\models"])
def test_a_path_that_is_not_there_is_never_asked_of_the_hub(name: str) -> None:
    with pytest.raises(DsvlError, match="there is no folder"):
        resolve_model(name)


@pytest.mark.parametrize(("name", "near"), [("1.3", "1.3b"), ("7bb", "7b"), ("tinny", "tiny"), ("7b-bas", "7b-base")])
def test_an_unknown_alias_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_model(name)
    assert caught.value.hint is not None
    assert f"did you mean {near}?" in caught.value.hint
    assert all(alias in caught.value.hint for alias in ALIASES)


@given(st.text(max_size=30) | st.text(alphabet="~./a", max_size=8) | st.just("x" * 5000))
def test_any_name_is_understood_or_refused(name: str) -> None:
    found: Path | str | None = None
    with contextlib.suppress(DsvlError):
        found = resolve_model(name)
    assert found is None or isinstance(found, Path) or found.count("/") == 1


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(DsvlError) as caught:
        resolve_model(str(tmp_path / "model.safetensors"))
    assert caught.value.hint == f"try --model {tmp_path}"


@pytest.mark.parametrize(
    ("name", "is_base"),
    [
        ("deepseek-community/deepseek-vl-1.3b-base", True),
        ("7b-base", True),
        ("deepseek-vl-7b-base-nf4", True),
        ("models--deepseek-community--deepseek-vl-7b-base", True),
        ("deepseek-community/deepseek-vl-1.3b-chat", False),
        ("baseball", False),
        ("knowledge-base-chat", False),
    ],
)
def test_base_models_are_known_by_name(name: str, is_base: bool) -> None:
    assert is_base_name(name) is is_base


# --- folders


def test_a_checkpoint_says_what_its_files_say(tmp_path: Path) -> None:
    found = check_folder("mine", write_folder(tmp_path, make_files()))
    assert (found.name, found.model_type, found.has_chat, found.commit) == ("mine", "deepseek_vl", True, None)
    assert found.parameters == 64 * 32 + 32
    assert found.weight_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert found.config == CONFIG


def test_shards_are_counted_together(tmp_path: Path) -> None:
    found = check_folder("mine", write_folder(tmp_path, make_sharded_files()))
    assert found.parameters == 64 + 4 + 4
    assert found.weight_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("name", sorted(make_files().keys() - {"tokenizer_config.json", "chat_template.jinja"}))
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, make_files())
    (tmp_path / name).unlink()
    with pytest.raises(DsvlError, match=name.replace(".", r"\.")):
        check_folder("mine", tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, make_sharded_files())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DsvlError, match="model-00002-of-00002"):
        check_folder("mine", tmp_path)


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "../other/model.safetensors"}}).encode()
    files = make_files(model_safetensors=None) | {"model.safetensors.index.json": index}
    with pytest.raises(DsvlError, match="lists no weights"):
        check_folder("mine", write_folder(tmp_path, files))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    files = make_files(model_safetensors=None, pytorch_model_bin=b"pickle")
    with pytest.raises(DsvlError, match="only loads safetensors"):
        check_folder("mine", write_folder(tmp_path, files))


@pytest.mark.parametrize("model_type", ["llava", "multi_modality", None, ["deepseek_vl"]])
def test_other_models_are_refused_by_name(tmp_path: Path, model_type: object) -> None:
    files = make_files(config_json=json.dumps({"model_type": model_type}).encode())
    with pytest.raises(DsvlError) as caught:
        check_folder("mine", write_folder(tmp_path, files))
    assert repr(model_type) in caught.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"model_type": "deepseek_vl", "text_config": 3}'])
def test_a_damaged_configuration_is_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DsvlError, match="damaged"):
        check_folder("mine", write_folder(tmp_path, make_files(config_json=content)))


def test_any_truncation_of_the_weights_is_noticed(tmp_path: Path) -> None:
    whole = make_weights({"a": (64, 32), "b": (32,)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole)
    assert read_header(path) == {"a": (64, 32), "b": (32,)}
    for length in [0, 5, 8, 40, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DsvlError, match=r"truncated|not a safetensors"):
            read_header(path)


def test_truncation_is_told_with_the_figures(tmp_path: Path) -> None:
    whole = make_files()["model.safetensors"]
    write_folder(tmp_path, make_files(model_safetensors=whole[:-10]))
    with pytest.raises(DsvlError) as caught:
        check_folder("mine", tmp_path)
    assert f"truncated: it has {len(whole) - 10:,} of {len(whole):,} bytes" in caught.value.message
    assert str(tmp_path / "model.safetensors") in str(caught.value.hint)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_safetensors_never_crash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    for content in (data, len(data).to_bytes(8, "little") + data):
        path.write_bytes(content)
        shapes: dict[str, tuple[int, ...]] = {}
        with contextlib.suppress(DsvlError):
            shapes = read_header(path)
        assert all(isinstance(shape, tuple) for shape in shapes.values())


@pytest.mark.parametrize("place", ["tokenizer_config.json", "processor_config.json", "chat_template.json"])
def test_a_chat_template_may_stand_in_any_of_its_places(tmp_path: Path, place: str) -> None:
    files = make_files(chat_template_jinja=None)
    assert not check_folder("mine", write_folder(tmp_path / "without", files)).has_chat
    files[place] = json.dumps({"chat_template": "{{ messages }}"}).encode()
    assert check_folder("mine", write_folder(tmp_path / "with", files)).has_chat


def test_a_base_model_has_no_chat_even_with_a_template(tmp_path: Path) -> None:
    assert not check_folder("mine", write_folder(tmp_path / "my-7b-base", make_files())).has_chat
    snapshot = tmp_path / "models--org--vl-base" / "snapshots" / COMMIT
    found = check_folder("mine", write_folder(snapshot, make_files()))
    assert not found.has_chat
    assert check_folder("base", write_folder(tmp_path / "base" / "mine", make_files())).has_chat
    assert found.commit == COMMIT


def test_fingerprints_tell_models_apart_and_copies_not(tmp_path: Path) -> None:
    weights = {"a": (64, 32), "b": (32,)}
    variants = {
        "first": make_files(),
        "trained": make_files(model_safetensors=make_weights(weights, b"\1")),
        "shape": make_files(model_safetensors=make_weights({"a": (32, 64), "b": (32,)})),
        "tokenizer": make_files(tokenizer_json=b'{"a": 1}'),
        "config": make_files(config_json=json.dumps(CONFIG | {"image_token_id": 3}).encode()),
    }
    prints = {
        name: check_folder(name, write_folder(tmp_path / name, files)).fingerprint for name, files in variants.items()
    }
    assert len(set(prints.values())) == len(variants)
    assert check_folder("copy", write_folder(tmp_path / "copy", make_files())).fingerprint == prints["first"]


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, make_files())
    with pytest.raises(UsageError, match="--revision"):
        find_checkpoint(LoadOptions(model=str(tmp_path), revision="main"), Ear())


def test_tiny_is_there_and_does_not_say_before_it_is_loaded_what_it_is() -> None:
    ear = Ear()
    found = find_checkpoint(LoadOptions(model="tiny", offline=True), ear)
    assert found.has_chat
    assert found.weight_bytes <= 16_000_000
    assert ear.notes == []

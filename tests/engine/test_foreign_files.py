"""Files that other releases, tools and people make: the answers are those of transformers on the same folder.

What is changed here of the embedded model's files is what real checkpoints have otherwise.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, check_folder
from dsvl_cli.engine.conversation import Conversation, Message, Reply
from dsvl_cli.engine.conversion.convert import quantize_checkpoint
from dsvl_cli.engine.conversion.verify import verify_checkpoint
from dsvl_cli.engine.kernels.stored_weights import Kind, Weight
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.network.model_class import find_model_class
from dsvl_cli.engine.network.vision import list_vision_tensors
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.progress import Silence
from dsvl_cli.engine.quantization.formats import FORMATS, Recipe
from dsvl_cli.engine.text.detokenizer import Detokenizer
from dsvl_cli.engine.text.prompt import PromptFormat
from dsvl_cli.errors import DsvlError
from tests.engine.test_parity import process, processor_of
from tests.listeners import Ear
from tests.pictures import draw_picture

GREEDY = SamplingParams(max_new_tokens=24)
Tensors = dict[str, torch.Tensor]


def copy_tiny(folder: Path, change: Callable[[Tensors], Tensors] | None = None, **config: Any) -> Path:
    """Copy the embedded model, its tensors and its `config.json` changed; `_` in a key of the text config is kept."""
    folder.mkdir()
    for file in EMBEDDED_FOLDER.iterdir():
        if file.is_file() and file.name != "README.md":
            shutil.copy(file, folder)
    if change is not None:
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", lambda value: value.update(config))
    return folder


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text(encoding="utf-8"))
    change(value)
    file.write_text(json.dumps(value), encoding="utf-8")


def load(folder: Path, *, ear: Ear | None = None, **options: Any) -> VisionLanguageModel:
    return load_model(LoadOptions(model=str(folder), device="cpu", dtype="float32", **options), ear or Ear())


def conversations() -> list[Conversation]:
    questions = ("Describe this image.", "What colour is it?", "How many shapes are there?")
    return [Conversation([Message("user", (draw_picture(seed), text))]) for seed, text in enumerate(questions)]


def assert_equal_to_transformers(model: VisionLanguageModel) -> list[str]:
    """The processor and `generate` of transformers on the same folder give the same ids and answers."""
    folder = model.checkpoint.path
    processor = processor_of(model)
    reference = find_model_class(model.checkpoint.model_type).from_pretrained(folder, dtype=torch.float32).eval()
    ends = sorted(model.end_ids)
    texts = []
    for conversation in conversations():
        inputs = process(processor, conversation)
        assert inputs["input_ids"][0].tolist() == list(model.prepare(conversation).token_ids)
        reply = Reply.of(model.stream(conversation, GREEDY))
        output = reference.generate(
            **inputs,
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
            suppress_tokens=sorted(model.format.control_ids - model.end_ids),
        )
        answer = output[0, inputs["input_ids"].shape[1] :].tolist()
        assert list(reply.token_ids) == [token for token in answer if token not in model.end_ids]
        texts.append(reply.text)
    return texts


def with_head(tensors: Tensors, shift: float = 0.0) -> Tensors:
    embeddings = tensors["model.language_model.embed_tokens.weight"]
    return {**tensors, "lm_head.weight": embeddings.roll(1, 0) * 0.5 + shift if shift else embeddings.clone()}


def test_a_head_that_is_stored_although_it_is_tied(tmp_path: Path, tiny: VisionLanguageModel) -> None:
    same = load(copy_tiny(tmp_path / "same", with_head))
    assert assert_equal_to_transformers(same) == [Reply.of(tiny.stream(one, GREEDY)).text for one in conversations()]
    # transformers takes both where they differ.
    other = load(copy_tiny(tmp_path / "other", lambda tensors: with_head(tensors, 1e-3)))
    assert assert_equal_to_transformers(other) != [Reply.of(tiny.stream(one, GREEDY)).text for one in conversations()]


def test_a_head_of_its_own_is_kept_when_a_tied_checkpoint_is_quantized(tmp_path: Path) -> None:
    source = check_folder("x", copy_tiny(tmp_path / "x", lambda tensors: with_head(tensors, 1e-3)))
    written = quantize_checkpoint(source, tmp_path / "out", Recipe(FORMATS["bnb-int8"]), Silence())
    assert "lm_head.weight" in load_file(written.path / "model.safetensors")
    assert json.loads((written.path / "config.json").read_text())["tie_word_embeddings"] is False
    found = verify_checkpoint(source, check_folder("out", written.path), LoadOptions(dtype="float32", device="cpu"),
                              [draw_picture(1)], Silence())  # fmt: skip
    assert found.problems == ()


def test_embeddings_that_only_the_tied_head_holds(tmp_path: Path) -> None:
    def move(tensors: Tensors) -> Tensors:
        tensors["lm_head.weight"] = tensors.pop("model.language_model.embed_tokens.weight")
        return tensors

    folder = copy_tiny(tmp_path / "x", move)
    assert_equal_to_transformers(load(folder))
    written = quantize_checkpoint(check_folder("x", folder), tmp_path / "out", Recipe(FORMATS["bnb-int8"]), Silence())
    assert_answers_about_pictures(load(written.path))


@pytest.mark.parametrize("name", ["bnb-int8", "int8"])
def test_a_head_that_is_not_said_to_be_its_own_can_be_quantized(tmp_path: Path, name: Any) -> None:
    """The public checkpoints say nothing of their head, which is untied."""
    folder = copy_tiny(tmp_path / "x", lambda tensors: with_head(tensors))
    edit(
        folder / "config.json",
        lambda config: [config.pop("tie_word_embeddings"), config["text_config"].pop("tie_word_embeddings")],
    )
    model = load(folder, quantization=name, include_head=True)
    assert_answers_about_pictures(model)
    if name == "int8":
        assert isinstance(model.network.decoder.head, Weight)
        assert model.network.decoder.head.kind is Kind.INT8


def test_an_answer_does_not_end_at_an_ordinary_token(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path / "x")
    ends = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    assert load(folder).end_ids == {1022}


def test_a_head_that_is_missing_is_named_and_never_drawn_at_random(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path / "x", tie_word_embeddings=False)
    ways: list[dict[str, Any]] = [{}, {"attn_implementation": "eager"}, {"quantization": "bnb-nf4"}]
    for options in ways:
        with pytest.raises(DsvlError, match=r"has no lm_head\.weight"):
            load(folder, **options)


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    def drop(tensors: Tensors) -> Tensors:
        del tensors["model.vision_model.encoder.layers.2.mlp.fc1.bias"]
        return tensors

    with pytest.raises(DsvlError, match=r"has no model\.vision_model\.encoder\.layers\.2\.mlp\.fc1\.bias"):
        load(copy_tiny(tmp_path / "x", drop))


def test_a_model_without_its_head_has_other_names(tmp_path: Path) -> None:
    """As `DeepseekVLModel.save_pretrained` writes it."""
    folder = copy_tiny(tmp_path / "x", lambda tensors: {k.removeprefix("model."): v for k, v in tensors.items()})
    ear = Ear()
    assert_equal_to_transformers(load(folder, ear=ear))
    assert ear.notes == []


def test_names_that_only_transformers_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout that is not known here is said once, and transformers loads it."""
    monkeypatch.setattr("dsvl_cli.engine.checkpoint.layouts._NESTED", __import__("re").compile("never"))

    def nest(tensors: Tensors) -> Tensors:
        return {k.replace("model.vision_model.", "model.vision_model.vision_model."): v for k, v in tensors.items()}

    folder = copy_tiny(tmp_path / "x", nest)
    ear = Ear()
    model = load(folder, ear=ear)
    assert model.network.module is not None
    assert len(ear.notes) == 1
    assert "has a layout that dsvl does not know" in ear.notes[0]
    assert_equal_to_transformers(model)
    with pytest.raises(DsvlError, match="int8 and int4: it has no model"):
        load(folder, quantization="int8")
    written = quantize_checkpoint(check_folder("x", folder), tmp_path / "out", Recipe(FORMATS["bnb-int8"]), Silence())
    assert set(list_vision_tensors(check_folder("out", written.path).config)) <= set(
        load_file(written.path / "model.safetensors")
    )


@pytest.mark.parametrize("wanted", [True, False])
def test_a_pooling_head(tmp_path: Path, wanted: bool) -> None:
    """Files with one, files that ask for one and have none: DeepSeek-VL never uses it."""

    def add(tensors: Tensors) -> Tensors:
        return {**tensors, "model.vision_model.head.probe": torch.zeros((1, 1, 256), dtype=torch.bfloat16)}

    folder = copy_tiny(tmp_path / "x", None if wanted else add)
    edit(folder / "config.json", lambda config: config["vision_config"].update(vision_use_head=wanted))
    ways: list[dict[str, Any]] = [{}, {"attn_implementation": "eager"}]
    for options in ways:
        assert_equal_to_transformers(load(folder, **options))
    written = quantize_checkpoint(check_folder("x", folder), tmp_path / "out", Recipe(FORMATS["bnb-int8"]), Silence())
    assert_answers_about_pictures(load(written.path))


def assert_answers_about_pictures(model: VisionLanguageModel) -> None:
    texts = [Reply.of(model.stream(one, GREEDY)).text for one in conversations()]
    assert len(set(texts)) == len(texts)


def test_settings_that_are_absent(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path / "x")
    (folder / "generation_config.json").unlink()
    for name in ("pickles.bin", ".gitattributes", "notes.txt"):
        (folder / name).write_bytes(b"\0\xff")
    edit(folder / "config.json", lambda config: [config["text_config"].pop(key) for key in ("head_dim", "mlp_bias")])
    model = load(folder)
    assert assert_equal_to_transformers(model)
    assert model.end_ids == {1022}


@pytest.mark.parametrize(
    ("generation", "ends"),
    [
        ({"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2}, {1022}),
        ({"_from_model_config": True, "eos_token_id": [2, 1021]}, {1021, 1022}),
        ({"_from_model_config": False, "eos_token_id": 2}, {2, 1022}),
        ({"eos_token_id": [2, 5]}, {2, 5, 1022}),
    ],
)
def test_an_end_that_is_only_a_default_of_llama_s_ends_nothing(
    tmp_path: Path, generation: dict[str, Any], ends: set[int]
) -> None:
    """The converted checkpoints have one, and in DeepSeek's vocabulary as in the embedded one it is `#`."""
    folder = copy_tiny(tmp_path / "x")
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    model = load(folder)
    assert model.format.decode([2]) == "#"
    assert model.end_ids == ends


def test_an_index_may_name_a_file_twice_and_in_any_order(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path / "x")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {name: file for file, part in files.items() for name in reversed(part)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert_equal_to_transformers(load(folder))


def test_a_tokenizer_as_deepseeks(tmp_path: Path) -> None:
    """A sequence of splits before byte level, 100,016 entries, added tokens that are not special and normalized."""
    trained = Tokenizer(models.BPE())
    splits = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"\s+$", "[一-龥ࠀ-一가-퟿]+"]
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [*(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in splits), pre_tokenizers.Digits(True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )  # fmt: skip
    trained.decoder = decoders.ByteLevel()
    # Letters that stand for bytes which UTF-8 never has: DeepSeek's vocabulary has them as added tokens only.
    letters = "øöúÿõ÷ûýÀùÁþü"
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(letters))
    vocab = {token: index for index, token in enumerate(alphabet)}
    merges = [("Ġ", letter) for letter in "abcdefgh"]
    vocab |= {"".join(pair): len(vocab) + index for index, pair in enumerate(merges)}
    vocab |= {f"<filler {index}>": index for index in range(len(vocab), 100_000)}
    trained.model = models.BPE(vocab=vocab, merges=merges)
    trained.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (
        "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")])  # fmt: skip
    trained.add_tokens([AddedToken(letter, normalized=True, special=False) for letter in letters])
    trained.add_special_tokens([AddedToken("<image_placeholder>", normalized=False, special=True)])
    folder = copy_tiny(tmp_path / "x")
    trained.save(str(folder / "tokenizer.json"))
    assert trained.token_to_id("<image_placeholder>") == 100_015
    form = PromptFormat(folder, 100_015, has_chat=True, fingerprint="x")
    from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor

    processor = DeepseekVLProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    for text in (
        "Wie schön, größer als À ÷ 2?",
        "图片里有什么？ 123",
        "tab\tand  two\r\n\r\nlines ",
        "naïve þorn <filler 9>",
    ):
        conversation = Conversation([Message("user", (draw_picture(0), text.strip()))])
        ids = process(processor, conversation)["input_ids"][0].tolist()
        assert list(form.prepare(conversation).token_ids) == ids
        expected = processor.tokenizer.decode(ids, skip_special_tokens=True)
        assert form.decode(ids) == expected
        stream = Detokenizer(form.tokenizer)
        assert "".join([*map(stream.add, ids), stream.finish()]) == expected

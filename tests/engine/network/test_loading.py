"""Which way a checkpoint is loaded, and that both ways give the same model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, check_folder
from dsvl_cli.engine.checkpoint.tensors import StoredTensors
from dsvl_cli.engine.conversation import Conversation, Message, Reply
from dsvl_cli.engine.conversion.convert import quantize_checkpoint
from dsvl_cli.engine.kernels.stored_weights import Kind, Weight
from dsvl_cli.engine.machine.plan import Forecast
from dsvl_cli.engine.model import VisionLanguageModel, load_model
from dsvl_cli.engine.network import loading
from dsvl_cli.engine.network.packed_weights import pack_weights
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.progress import Silence
from dsvl_cli.engine.quantization.formats import FORMATS, Recipe
from dsvl_cli.errors import DsvlError
from tests.pictures import draw_picture


def answers(model: VisionLanguageModel) -> list[str]:
    talks = [Conversation([Message("user", (draw_picture(seed), "Describe this image."))]) for seed in range(6)]
    return [Reply.of(model.stream(talk, SamplingParams(max_new_tokens=24))).text for talk in talks]


def kinds(model: VisionLanguageModel) -> set[Kind]:
    layers = model.network.decoder.layers
    return {weight.kind for layer in layers for weight in (layer.query, layer.down) if isinstance(weight, Weight)}


def test_nothing_of_transformers_is_imported_for_an_answer() -> None:
    script = (
        "import sys; from dsvl_cli.cli import main; "
        "assert main(['describe', 'examples/red-circle.png', '--model', 'tiny', '--device', 'cpu', '-q']) == 0; "
        "print({'transformers', 'accelerate', 'torchao', 'bitsandbytes'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "A red circle on a white background.\nset()\n"


def test_eager_attention_takes_the_other_way_to_the_same_answers(tiny: VisionLanguageModel) -> None:
    eager = load_model(LoadOptions(model="tiny", dtype="float32", device="cpu", attn_implementation="eager"))
    assert eager.network.module is not None
    assert tiny.network.module is None
    assert answers(eager) == answers(tiny)


def test_the_head_is_in_8_bits_unless_4_are_requested() -> None:
    """The embedded model's head shares its weights with the embeddings, which stay as they are."""
    for include_head, kind in ((False, Kind.INT8), (True, Kind.INT4), (False, Kind.INT8)):
        options = LoadOptions(
            model="tiny", dtype="float32", device="cpu", quantization="int4", include_head=include_head
        )
        decoder = load_model(options).network.decoder
        assert isinstance(decoder.head, Weight)
        assert decoder.head.kind is kind
        assert decoder.embeddings.dtype == torch.float32


@pytest.mark.parametrize(("name", "kind"), [("int8", Kind.INT8), ("int4", Kind.INT4)])
def test_own_formats_answer_nearly_as_the_source(tiny: VisionLanguageModel, name: Any, kind: Kind) -> None:
    model = load_model(LoadOptions(model="tiny", dtype="float32", device="cpu", quantization=name))
    assert kinds(model) == {kind}
    wanted = answers(tiny)
    assert sum(one == other for one, other in zip(answers(model), wanted, strict=True)) >= len(wanted) - 1


def test_a_checkpoint_of_bitsandbytes_8_bits_is_mapped_as_it_is(tiny: VisionLanguageModel, tmp_path: Path) -> None:
    source = check_folder("tiny", EMBEDDED_FOLDER)
    for mapped in (True, False):
        recipe = Recipe(FORMATS["bnb-int8"], include_vision=not mapped)
        written = quantize_checkpoint(source, tmp_path / str(mapped), recipe, Silence())
        model = load_model(LoadOptions(model=str(written.path), device="cpu", dtype="float32"))
        assert (model.network.module is None) is mapped
        assert kinds(model) == ({Kind.INT8} if mapped else set())
        if mapped:
            assert answers(model) == answers(tiny)


def test_own_formats_are_for_the_small_model(hybrid_folder: Path) -> None:
    with pytest.raises(DsvlError, match="only the 1") as caught:
        load_model(LoadOptions(model=str(hybrid_folder), device="cpu", quantization="int4"))
    assert "bnb-nf4" in str(caught.value.hint)


def test_a_lack_of_memory_is_not_taken_for_damaged_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(loading, "_load_own", fail)
    with pytest.raises(RuntimeError, match="allocate memory"):
        load_model(LoadOptions(model="tiny", device="cpu"))


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_the_memory_estimate_counts_what_is_packed(
    monkeypatch: pytest.MonkeyPatch, name: Literal["int8", "int4"]
) -> None:
    """The language model and the vision tower."""
    forecasts: list[Forecast] = []
    monkeypatch.setattr(loading, "check_forecast", lambda forecast, force: forecasts.append(forecast))
    packed: dict[str, Weight] = {}

    def remember(*args: Any) -> dict[str, Weight]:
        packed.update(pack_weights(*args))
        return packed

    monkeypatch.setattr(loading, "pack_weights", remember)
    model = load_model(LoadOptions(model="tiny", dtype="bfloat16", device="cpu", quantization=name))
    with StoredTensors(model.checkpoint) as tensors:
        dense = sum(tensors[key].numel() for key in tensors if key.removesuffix(".weight") not in packed)
    assert {weight.kind for weight in packed.values()} == {Kind.INT8, Kind[name.upper()]}
    assert [one.weights_bytes for one in forecasts] == [2 * dense + sum(weight.nbytes for weight in packed.values())]

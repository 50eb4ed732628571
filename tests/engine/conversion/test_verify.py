from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.skills import measure_skills
from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER, Checkpoint, check_folder
from dsvl_cli.engine.conversion.compare import ANSWER_TOKENS, Run, compare_answers, draw_pictures, run_model
from dsvl_cli.engine.conversion.convert import quantize_checkpoint
from dsvl_cli.engine.conversion.verify import MAX_MEAN_KL, compare_weights, verify_checkpoint
from dsvl_cli.engine.machine.detect import detect_machine
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.engine.progress import Silence
from dsvl_cli.engine.quantization.formats import CELLS, FORMATS, STORED_FORMATS, Recipe, Verdict

CELLS_ON_CPU = [
    (name, dtype) for (name, kind, dtype), cell in CELLS.items() if kind == "cpu" and cell.verdict is Verdict.WORKS
]
STORED_CELLS = [cell for cell in CELLS_ON_CPU if cell[0] in STORED_FORMATS]
ON_CPU = sorted({name for name, _ in STORED_CELLS})
OPTIONS = LoadOptions(device="cpu", dtype="bfloat16")
LAYER = "model.language_model.layers.1.mlp.up_proj"
MOST_LOST = {4: 0.04, 8: 0.01}  # of the mean of tiny's skills, by bits


@pytest.fixture(scope="module")
def source() -> Checkpoint:
    return check_folder("tiny", EMBEDDED_FOLDER)


def quantize(source: Checkpoint, name: str, folder: Path) -> Checkpoint:
    return check_folder("copy", quantize_checkpoint(source, folder, Recipe(FORMATS[name]), Silence()).path)


def change(checkpoint: Checkpoint, key: str, value: Any) -> None:
    """Change a tensor of a checkpoint by a function of it."""
    path = checkpoint.path / "model.safetensors"
    tensors = load_file(path)
    tensors[key] = value(tensors[key])
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("name", ON_CPU)
def test_a_good_copy_is_found_good(source: Checkpoint, tmp_path: Path, name: str) -> None:
    copy = quantize(source, name, tmp_path / "copy")
    verification = verify_checkpoint(source, copy, OPTIONS, draw_pictures()[:1], Silence())
    assert verification.problems == ()
    assert len(verification.weights.layers) == 28
    answers, quantized = verification.answers, verification.quantized
    assert answers is not None
    assert quantized is not None
    assert 0 < answers.tokens <= ANSWER_TOKENS
    assert 0.5 < answers.agreement <= 1
    assert 0 <= answers.mean_kl <= answers.p99_kl
    assert quantized.disk_bytes == copy.weight_bytes < source.weight_bytes


def flip(tensor: torch.Tensor) -> torch.Tensor:
    """Turn the scales of a few blocks upside down."""
    changed = tensor.clone()
    changed[:4] = 255 - changed[:4]
    return changed


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("bnb-nf4", f"{LAYER}.weight.absmax", flip),
        ("bnb-nf4", f"{LAYER}.weight", lambda tensor: tensor.flip(0)),
        ("bnb-fp4", f"{LAYER}.weight.nested_absmax", lambda tensor: tensor * 2),
        ("bnb-int8", f"{LAYER}.SCB", lambda tensor: tensor.roll(1)),
        ("bnb-int8", f"{LAYER}.SCB", lambda tensor: tensor * torch.nan),
        ("bnb-int8", f"{LAYER}.weight", lambda tensor: tensor.roll(1)),
    ],
)
def test_damaged_weights_are_found(source: Checkpoint, tmp_path: Path, name: str, key: str, value: Any) -> None:
    copy = quantize(source, name, tmp_path / "copy")
    change(copy, key, value)
    verification = verify_checkpoint(source, copy, OPTIONS, [], Silence())
    assert verification.weights.damaged == (f"{LAYER}.weight",)
    assert len(verification.problems) == 1


def test_weights_that_were_not_to_be_changed_are_found(source: Checkpoint, tmp_path: Path) -> None:
    copy = quantize(source, "bnb-nf4", tmp_path / "copy")
    key = "model.language_model.norm.weight"
    change(copy, key, lambda tensor: tensor * 2)
    assert compare_weights(source, copy, Silence()).changed == (key,)


@pytest.mark.skipif("avx512_bf16" not in detect_machine().cpu_features, reason="other CPUs repack no weights")
def test_what_transformers_saves_after_a_prompt_is_found_damaged(source: Checkpoint, tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    from dsvl_cli.engine.network.library_logging import import_backend, mute_libraries
    from dsvl_cli.engine.network.model_class import find_model_class, make_skeleton
    from dsvl_cli.engine.quantization.selection import select_layers

    import_backend("bitsandbytes")
    kept = list(select_layers(make_skeleton(source), Recipe(FORMATS["bnb-nf4"])).kept)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=kept)
    folder = tmp_path / "damaged"
    shutil.copytree(EMBEDDED_FOLDER, folder)
    with mute_libraries(), torch.inference_mode():
        model = find_model_class("deepseek_vl").from_pretrained(
            source.path, dtype="auto", device_map="cpu", quantization_config=config
        )
        model.eval()(input_ids=torch.tensor([[1, 2, 3]]))
        model.save_pretrained(folder)
    weights = compare_weights(source, check_folder("damaged", folder), Silence())
    assert len(weights.damaged) == 28


def test_the_same_model_answers_the_same() -> None:
    pictures = draw_pictures()
    options = LoadOptions(model="tiny", device="cpu", dtype="float32")
    first = run_model(options, pictures, Silence())
    again = run_model(options, pictures, Silence(), first.token_ids)
    comparison = compare_answers(first, again)
    assert comparison.same_answers == len(pictures) == 3
    assert comparison.agreement == 1
    assert comparison.mean_kl == comparison.p99_kl == 0


def test_divergence_is_counted_by_hand() -> None:
    def run(*rows: list[float]) -> Run:
        return Run(((0,) * len(rows),), (torch.tensor(rows).log(),), 0.0, 0)

    comparison = compare_answers(run([0.5, 0.5], [0.9, 0.1]), run([0.25, 0.75], [0.9, 0.1]))
    assert comparison.tokens == 2
    assert comparison.agreement == 0.5
    assert comparison.same_answers == 0
    expected = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()
    assert comparison.mean_kl == pytest.approx(float(expected) / 2)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [pytest.param(*cell, marks=() if cell[1] == "bfloat16" else pytest.mark.soak) for cell in STORED_CELLS],
)
def test_a_hybrid_stays_near_its_source(hybrid_folder: Path, tmp_path: Path, name: str, dtype: Any) -> None:
    source = check_folder("hybrid", hybrid_folder)
    copy = quantize(source, name, tmp_path / "copy")
    options = LoadOptions(device="cpu", dtype=dtype)
    verification = verify_checkpoint(source, copy, options, draw_pictures()[:1], Silence())
    assert verification.answers is not None
    assert verification.weights.damaged == ()
    assert verification.answers.mean_kl <= MAX_MEAN_KL[FORMATS[name].bits]


# Skills that tiny has nearly wholly, so that a few questions tell a good copy from a bad one.
SURE_SKILLS = ["colour of 1", "kind of 1", "place of 1", "follow-up"]


def options_of(source: Checkpoint, folder: Path, name: Any, dtype: Any) -> LoadOptions:
    """How to load tiny in a format: from a quantized folder where there is such a one, else quantized at load."""
    if name not in STORED_FORMATS:
        return LoadOptions("tiny", device="cpu", dtype=dtype, quantization=name)
    return LoadOptions(str(quantize(source, name, folder).path), device="cpu", dtype=dtype)


@pytest.mark.parametrize(("name", "dtype"), random.Random(2).sample(CELLS_ON_CPU, 2))
def test_some_of_tinys_skills_are_kept(source: Checkpoint, tmp_path: Path, name: str, dtype: Any) -> None:
    plain = LoadOptions("tiny", device="cpu", dtype=dtype)
    before, after = (
        mean(measure_skills(options, SURE_SKILLS, per_skill=6).values())
        for options in (plain, options_of(source, tmp_path / "copy", name, dtype))
    )
    assert before >= 0.9
    assert before - after <= 0.05


@pytest.mark.soak
@pytest.mark.parametrize(("name", "dtype"), CELLS_ON_CPU)
def test_a_new_process_finds_tinys_skills_kept(
    source: Checkpoint, tmp_path: Path, before: Callable[[str], float], name: str, dtype: str
) -> None:
    after = mean_skill(options_of(source, tmp_path / "copy", name, dtype))
    assert before(dtype) - after <= MOST_LOST[FORMATS[name].bits]


@pytest.fixture(scope="module")
def before() -> Callable[[str], float]:
    """The mean of the skills of tiny as it is, by dtype."""

    def measure(dtype: Any) -> float:
        return mean_skill(LoadOptions("tiny", dtype=dtype))

    return cache(measure)


def mean_skill(options: LoadOptions) -> float:
    command = [sys.executable, "-m", "benchmarks.skills", options.model, "--dtype", options.dtype]
    if options.quantization is not None:
        command += ["--quantization", options.quantization]
    run = subprocess.run([*command, "--per-skill", "100", "--json"], capture_output=True, text=True, check=True)
    table: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return mean(table.values())

"""Checkpoints from strangers end in one line, in time and without much memory; harmless ones may also answer.

What a harmless one answers is not compared. The memory is that of the process itself, beyond what it had before.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.engine.checkpoint.hostile import REFUSED, list_variants
from tests.engine.checkpoint.hostile_trial import LARGEST_GROWTH, SECONDS, try_variants

VARIANTS = list_variants()
# Each is of another kind, and was a crash, a hang, an error of dsvl or an answer without sense.
FAMOUS = (
    "text_config.num_hidden_layers is 1099511627776",
    "2 heads, 4 key-value heads",
    "vision_config.patch_size is 17",
    "the head is narrower",
    "language_model.norm is shorter",
    "model.language_model.layers.3.mlp.up_proj.weight has dtype I8",
    "model.language_model.layers.3.self_attn.v_proj.weight has one NaN number, int4",
    "8-bit scales: short",
    "8-bit scales: NaN",
    "offsets that overlap",
    "a nested header",
    "template: nested ranges",
    "template: a format of a gigabyte",
    "template: too many pictures",
    "tokenizer: ids far outside",
    "tokenizer: a pattern that tries all ways",
    "tokenizer: a megabyte for each letter",
    "image_token_id is 1021",
    "min_size is 1000000",
    "num_image_tokens is 1000000000",
)


def check(numbers: Sequence[int], folder: Path) -> None:
    """Try variants, and see that each ends as it should."""
    wrong = []
    for ending in try_variants(numbers, folder):
        variant = VARIANTS[ending.number]
        is_right = ending.kind == "refused" if variant.wanted == REFUSED else ending.kind in ("answered", "refused")
        one_line = "\n" not in ending.text and len(ending.text) < 1000
        is_cheap = ending.seconds <= SECONDS and ending.growth <= LARGEST_GROWTH
        if not (is_right and one_line and is_cheap):
            wrong.append(f"{variant}: {ending}")
    assert not wrong, "\n".join(wrong)


def test_variants_have_names_of_their_own() -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(names) == len(set(names))
    assert len(names) >= 190
    assert set(FAMOUS) <= set(names)


@pytest.mark.fault("hostile checkpoint", cases=len(FAMOUS) + 12)
def test_a_sample_of_hostile_checkpoints(tmp_path: Path, chance: random.Random) -> None:
    famous = [index for index, variant in enumerate(VARIANTS) if variant.name in FAMOUS]
    quick = [
        index
        for index, variant in enumerate(VARIANTS)
        if variant.name not in FAMOUS
        and not variant.name.startswith(("template", "model_type", "quantization_config", "there is no"))
    ]
    check([*famous, *chance.sample(quick, 12)], tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.fault("hostile checkpoint", cases=len(VARIANTS))
def test_all_hostile_checkpoints(tmp_path: Path) -> None:
    check(range(len(VARIANTS)), tmp_path)

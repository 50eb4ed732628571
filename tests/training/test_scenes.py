"""Scenes are decided by their seed, and clear by construction."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from training.codes import label_patches
from training.scenes import (
    COLOURS,
    SPLIT_BASE,
    Scene,
    draw_owners,
    draw_scene,
    picture_size,
    sample_scene,
    split_random,
)


def scenes(count: int, seed: int = 5) -> list[Scene]:
    return [sample_scene(split_random("evaluation", seed, index)) for index in range(count)]


def test_a_seed_decides_scene_and_picture() -> None:
    for first, second in zip(scenes(20), scenes(20), strict=True):
        assert first == second
        assert draw_scene(first, 96).tobytes() == draw_scene(second, 96).tobytes()
    assert scenes(20) != scenes(20, seed=6)


def test_training_and_evaluation_never_share_a_seed() -> None:
    # Indices and seeds stay below 2**28, so training's numbers end where evaluation's begin.
    last_of_training = SPLIT_BASE["train"] + (2**28 << 28) + 2**28
    assert last_of_training < SPLIT_BASE["evaluation"]
    assert not set(map(repr, scenes(200))) & {repr(sample_scene(split_random("train", 5, i))) for i in range(200)}


def test_colours_differ_from_the_ground_and_looks_from_each_other() -> None:
    for scene in scenes(300):
        assert scene.background in COLOURS
        assert all(shape.colour != scene.background for shape in scene.shapes)
        assert len({(shape.colour, shape.kind) for shape in scene.shapes}) == len(scene.shapes)
        assert (scene.number is None) == bool(scene.shapes)


def test_order_is_visible() -> None:
    for scene in scenes(300):
        axis = [shape.y if scene.stacked else shape.x for shape in scene.shapes]
        assert all(after - before >= 0.14 for before, after in pairwise(axis))


@pytest.mark.parametrize("side", [40, 128, 700])
def test_everything_is_drawn_inside_the_picture(side: int) -> None:
    for scene in scenes(40):
        things = len(scene.shapes) or len(scene.number.text if scene.number else "")
        owners = np.asarray(draw_owners(scene, side))
        assert owners.shape[::-1] == picture_size(scene, side) == draw_scene(scene, side).size
        assert set(np.unique(owners)) == set(range(things + 1))


def test_a_named_place_is_where_the_shape_is() -> None:
    for scene in scenes(300):
        for shape in scene.shapes:
            if shape.slot is None:
                continue
            assert ("left" in shape.slot) == (shape.x < 0.35)
            assert ("right" in shape.slot) == (shape.x > 0.65)
            assert ("top" in shape.slot) == (shape.y < 0.35)
            assert ("bottom" in shape.slot) == (shape.y > 0.65)


def test_labels_of_patches_name_what_is_drawn() -> None:
    for scene in scenes(60):
        colours = set(label_patches(scene)[:, 1].tolist()) - {0, -100}
        drawn = {shape.colour for shape in scene.shapes} or {scene.number.colour if scene.number else ""}
        assert {list(COLOURS)[colour - 1] for colour in colours} == drawn

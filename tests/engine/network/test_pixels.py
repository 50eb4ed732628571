"""Our pixels against those of transformers' PIL image processors, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil
from transformers.models.deepseek_vl_hybrid.image_processing_pil_deepseek_vl_hybrid import (
    DeepseekVLHybridImageProcessorPil,
)

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.network.pixels import ImageProcessor, make_image_processor, read_image_processor
from dsvl_cli.errors import DsvlError

HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Every level of every channel, without order."""
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height))


def by_transformers(values: dict[str, Any], image: Image.Image, *, hybrid: bool) -> dict[str, torch.Tensor]:
    processor: Any = (DeepseekVLHybridImageProcessorPil if hybrid else DeepseekVLImageProcessorPil)(**values)
    return dict(processor(images=[image], return_tensors="pt"))


def assert_same(values: dict[str, Any], image: Image.Image, *, hybrid: bool) -> None:
    expected = by_transformers(values, image, hybrid=hybrid)
    ours = make_image_processor(values, hybrid=hybrid)(image)
    assert ours.keys() == expected.keys()
    for name, pixels in expected.items():
        assert ours[name].shape == pixels.shape
        assert ours[name].dtype == torch.float32
        assert torch.equal(ours[name], pixels.float())


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize(
    "size", [(384, 384), (1, 1), (1, 900), (900, 1), (383, 385), (640, 480), (481, 1203), (20, 31), (1024, 700)]
)
def test_sizes_and_shapes(size: tuple[int, int], hybrid: bool) -> None:
    assert_same({}, noise(*size), hybrid=hybrid)


@settings(max_examples=60, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    values=st.fixed_dictionaries(
        {},
        optional={
            "size": st.sampled_from([64, {"height": 96, "width": 96}, [33, 33]]),
            "high_res_size": st.sampled_from([128, {"height": 200, "width": 200}]),
            "min_size": st.integers(1, 40),
            "resample": st.integers(0, 5),
            "high_res_resample": st.integers(0, 5),
            "image_mean": st.lists(st.floats(0, 1), min_size=3, max_size=3),
            "image_std": st.lists(st.floats(0.1, 1), min_size=3, max_size=3),
            "high_res_image_mean": st.lists(st.floats(0, 1), min_size=3, max_size=3),
            "high_res_image_std": st.lists(st.floats(0.1, 1), min_size=3, max_size=3),
            "rescale_factor": st.sampled_from([1 / 255, 1 / 127.5, 1.0]),
            "do_rescale": st.booleans(),
            "do_normalize": st.booleans(),
            "background_color": st.just([1, 2, 3]),
        },
    ),
    hybrid=st.booleans(),
)
def test_settings(size: tuple[int, int], values: dict[str, Any], hybrid: bool) -> None:
    if not hybrid:
        values = {name: value for name, value in values.items() if not name.startswith("high_res_")}
    assert_same(values, noise(*size), hybrid=hybrid)


@pytest.mark.parametrize("file", ["processor_config.json", "preprocessor_config.json"])
def test_the_settings_are_found_where_transformers_looks(tmp_path: Path, file: str) -> None:
    shutil.copy(EMBEDDED_FOLDER / "processor_config.json", tmp_path)
    if file == "preprocessor_config.json":
        whole = json.loads((tmp_path / "processor_config.json").read_text())
        (tmp_path / file).write_text(json.dumps(whole.pop("image_processor")))
        (tmp_path / "processor_config.json").write_text(json.dumps(whole))
    image = noise(77, 300)
    expected = DeepseekVLImageProcessorPil.from_pretrained(tmp_path)(images=[image], return_tensors="pt")
    ours = read_image_processor(tmp_path, "deepseek_vl")(image)["pixel_values"]
    assert ours.shape == (1, 3, 128, 128)
    assert torch.equal(ours, expected["pixel_values"])


def test_a_saved_hybrid_is_read(hybrid_folder: Path) -> None:
    image = noise(300, 77)
    expected = DeepseekVLHybridImageProcessorPil.from_pretrained(hybrid_folder)(images=[image], return_tensors="pt")
    ours = read_image_processor(hybrid_folder, "deepseek_vl_hybrid")(image)
    assert {name: values.shape[-1] for name, values in ours.items()} == {
        "pixel_values": 64,
        "high_res_pixel_values": 256,
    }
    assert all(torch.equal(values, expected[name]) for name, values in ours.items())


@pytest.mark.parametrize("hybrid", [False, True])
def test_the_view_is_what_the_numbers_say(hybrid: bool) -> None:
    processor: ImageProcessor = make_image_processor(HALVES, hybrid=hybrid)
    image = noise(200, 90)
    levels = ((processor(image)["pixel_values"][0] * 0.5 + 0.5) * 255).round().to(torch.uint8)
    view = processor.view(image)
    assert view.size == (384, 384)
    assert view.tobytes() == levels.permute(1, 2, 0).contiguous().numpy().tobytes()


@pytest.mark.parametrize(
    "values",
    [
        {"image_size": 384},
        {"do_resize": False},
        {"do_pad": False},
        {"do_center_crop": True},
        {"do_flip_channel_order": True},
    ],
)
def test_what_would_give_other_pixels_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(DsvlError, match=f"setting {next(iter(values))} is not supported"):
        make_image_processor({**HALVES, **values}, hybrid=False)


@pytest.mark.parametrize(
    "written",
    [
        "{",
        "[]",
        "{}",
        '{"image_processor": 3}',
        '{"image_processor": {"size": {"shortest_edge": 3}}}',
        '{"image_processor": {"size": [3, 4]}}',
        '{"image_processor": {"size": 0}}',
        '{"image_processor": {"image_mean": 0.5}}',
        '{"image_processor": {"image_std": [1, 2]}}',
        '{"image_processor": {"min_size": "x"}}',
    ],
)
def test_broken_settings_are_refused(tmp_path: Path, written: str) -> None:
    (tmp_path / "processor_config.json").write_text(written)
    with pytest.raises(DsvlError):
        read_image_processor(tmp_path, "deepseek_vl")

import math

import pytest
from safetensors import safe_open

from benchmarks.limits import Limits, Shape
from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER

LIMITS = Limits(bandwidth=1e9, rates={"fp32": 1e9, "bf16": 2e9, "int8": 4e9})


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    """Of all weights of the embedded model that are matrices."""
    with safe_open(next(EMBEDDED_FOLDER.glob("*.safetensors")), "np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return {name: math.prod(shape) for name, shape in shapes.items() if len(shape) > 1 and "position" not in name}


def test_the_weights_counted_are_those_that_the_checkpoint_has(sizes: dict[str, int]) -> None:
    shape = Shape.read("tiny")
    assert shape.layer_weights == sum(size for name, size in sizes.items() if ".language_model.layers." in name)
    vision = sum(size for name, size in sizes.items() if "vision_model" in name or "aligner" in name)
    assert shape.vision_weights == vision
    assert shape.head_weights == next(size for name, size in sizes.items() if "embed_tokens" in name)


def test_a_step_reads_every_weight_once_and_the_cache(sizes: dict[str, int]) -> None:
    shape = Shape.read("tiny")
    weights = shape.layer_weights + shape.head_weights
    assert shape.step_bytes("bf16", 0) == 2 * weights
    assert shape.step_bytes("bnb-int8", 0) == weights
    assert shape.step_bytes("bnb-nf4", 0) == weights / 2
    # Two numbers of 16 bits for each of 256 channels in 4 layers.
    assert shape.step_bytes("bf16", 100) - shape.step_bytes("bf16", 0) == 100 * 2 * 2 * 256 * 4
    assert shape.cache_bytes("fp32", 100) == 2 * shape.cache_bytes("bnb-nf4", 100)


def test_a_format_may_use_every_unit_that_takes_wider_numbers() -> None:
    assert LIMITS.rate("fp32") == 1e9
    assert LIMITS.rate("bf16") == 2e9
    assert LIMITS.rate("bnb-int8") == 4e9
    assert Limits(1.0, {"fp32": 9.0, "bf16": 1.0, "int8": 2.0}).rate("bnb-nf4") == 9.0


def test_an_answer_takes_at_least_its_prefill_and_its_steps() -> None:
    shape = Shape.read("tiny")
    prefill = shape.prefill_seconds(LIMITS, "bf16", 113)
    one, many = (shape.answer_seconds(LIMITS, "bf16", 113, tokens) for tokens in (1, 101))
    assert prefill > 2 * shape.layer_weights * 113 / 2e9
    assert one == pytest.approx(prefill)
    assert many - prefill == pytest.approx(100 * shape.step_bytes("bf16", 163) / 1e9)


def test_a_turn_reads_the_weights_once_or_multiplies_its_tokens() -> None:
    shape = Shape.read("tiny")
    assert shape.turn_seconds(LIMITS, "bf16", 113, 1) == shape.step_bytes("bf16", 113) / 1e9
    many = 2 * (shape.layer_weights * 1000 + shape.head_weights) / 2e9
    assert shape.turn_seconds(LIMITS, "bf16", 113, 1000) == pytest.approx(many)


def test_a_batch_reads_the_weights_once_for_all_of_a_step() -> None:
    shape = Shape.read("tiny")
    slow = Limits(bandwidth=1e6, rates={"fp32": 1e15, "bf16": 1e15, "int8": 1e15})  # only bytes count
    alone, together = (shape.batch_rate(slow, "bf16", 100, 21, pictures) for pictures in (1, 16))
    step = shape.step_bytes("bf16", 0) + 16 * shape.cache_bytes("bf16", 110)
    assert together == pytest.approx(60 * 16 / (20 * step / 1e6), rel=1e-3)
    assert alone < together < 16 * alone

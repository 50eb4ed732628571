"""A loaded model's parts fit each other, and stay what they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.conversation import Conversation, Message, Request
from dsvl_cli.engine.model import load_model
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.errors import DsvlError
from tests.engine.checkpoint.hostile import list_variants
from tests.pictures import draw_picture

VARIANTS = {variant.name: variant for variant in list_variants()}
SHORT = SamplingParams(max_new_tokens=2)
TALK = Conversation([Message("user", (draw_picture(1), "What is it?"))])


@pytest.mark.fault("hostile checkpoint")
@pytest.mark.parametrize(
    "name",
    [
        "tokenizer: ids far outside", "tokenizer: words have the image's id",
        "tokenizer: tokens before a text of pictures",
        "num_image_tokens is 63", "num_image_tokens is 1000000000", "size is 127", "size is 256",
        "vision_config.image_size is 129", "image_token_id is 1021", "image_token_id is 5",
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_each_other_are_refused(name: str, tmp_path: Path) -> None:
    folder = VARIANTS[name].make(tmp_path / "variant")
    with pytest.raises(DsvlError):
        load_model(LoadOptions(model=str(folder), device="cpu", threads=1))


@pytest.mark.fault("changed weights", cases=3)
def test_weights_that_were_written_over_answer_nothing(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "copy"))
    model = load_model(LoadOptions(model=str(folder), device="cpu", threads=1))
    assert list(model.stream(TALK, SHORT))
    shutil.copyfile(EMBEDDED_FOLDER / "model.safetensors", folder / "model.safetensors")  # the same, but who knows
    for answer in (
        lambda: list(model.stream(TALK, SHORT)),
        lambda: list(model.stream_batch([TALK], SHORT)),
        lambda: list(model.answer_all([Request(1, TALK, SHORT)], 1)),
    ):
        with pytest.raises(DsvlError, match="was changed while it was in use"):
            answer()

"""Every layout of a checkpoint, in one file or several, in each dtype, tied or not, of both shapes, in every command.

Of all cells the fast suite does so many that any two values of any two axes meet in one; `just soak` does all.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.network.model_class import find_model_class
from tests.hub_layout import write_hub_layout
from tests.layout_matrix import ACTIONS, check


class Layout(NamedTuple):
    """How a checkpoint is stored."""

    writer: str
    shards: int
    dtype: str
    tied: bool
    shape: str


class Cell(NamedTuple):
    """A checkpoint, and what is done with it."""

    writer: str
    shards: int
    dtype: str
    tied: bool
    shape: str
    action: str

    @property
    def layout(self) -> Layout:
        return Layout(*self[:5])

    def __str__(self) -> str:
        return "-".join(map(str, (*self[:3], "tied" if self.tied else "untied", *self[4:]))).replace(" ", "-")


AXES: tuple[tuple[Any, ...], ...] = (
    ("4.55", "published", "4.57", "5.0", "current"),
    (1, 3),
    ("float32", "bfloat16", "float16"),
    (False, True),
    ("tiny", "hybrid"),
    ACTIONS,
)
CELLS = [
    cell for cell in itertools.starmap(Cell, itertools.product(*AXES)) if not (cell.writer == "published" and cell.tied)
]


@cache
def sample() -> tuple[Cell, ...]:
    """Choose cells so that each pair of values is in one of them; always the same."""
    rng = random.Random(0)

    def pairs(cell: Cell) -> Iterator[tuple[int, int, Any, Any]]:
        for one, other in itertools.combinations(range(len(AXES)), 2):
            yield one, other, cell[one], cell[other]

    missing = {pair for cell in CELLS for pair in pairs(cell)}
    chosen = []
    while missing:
        tried = rng.sample(CELLS, 200)
        best = max(tried, key=lambda cell: sum(pair in missing for pair in pairs(cell)))
        chosen.append(best)
        missing.difference_update(pairs(best))
    return tuple(sorted(chosen))


def write(layout: Layout, source: Path, target: Path) -> None:
    """Write a checkpoint; today's is written by today's transformers."""
    dtype = getattr(torch, layout.dtype)
    if layout.writer != "current":
        version: Any = "4.55" if layout.writer == "published" else layout.writer
        write_hub_layout(
            source, target, version=version, dtype=dtype, shards=layout.shards, tied=layout.tied,
            published=layout.writer == "published",
        )  # fmt: skip
        return
    from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor
    from transformers.models.deepseek_vl_hybrid.processing_deepseek_vl_hybrid import DeepseekVLHybridProcessor

    hybrid = layout.shape == "hybrid"
    model = find_model_class("deepseek_vl_hybrid" if hybrid else "deepseek_vl").from_pretrained(source, dtype=dtype)
    if not layout.tied:
        embeddings = model.model.language_model.embed_tokens.weight
        model.lm_head.weight = torch.nn.Parameter(embeddings.detach().clone())
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
        model.all_tied_weights_keys = {}
    size = sum(parameter.nbytes for parameter in model.parameters())
    model.save_pretrained(target, max_shard_size=size if layout.shards == 1 else size // layout.shards)
    processor_class = DeepseekVLHybridProcessor if hybrid else DeepseekVLProcessor
    processor_class.from_pretrained(source, backend="pil", local_files_only=True).save_pretrained(target)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, hybrid_folder: Path) -> Any:
    """Give the folder of a layout, which is written once."""

    @cache
    def folder(layout: Layout) -> Path:
        target = tmp_path_factory.mktemp("layout") / "checkpoint"
        write(layout, hybrid_folder if layout.shape == "hybrid" else EMBEDDED_FOLDER, target)
        return target

    return folder


@pytest.mark.parametrize("cell", sample(), ids=str)
def test_any_two_values_work_together(
    cell: Cell, written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(cell.action, written(cell.layout), tmp_path, capsys, monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_cell_works(
    cell: Cell, written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(cell.action, written(cell.layout), tmp_path, capsys, monkeypatch)


def test_the_sample_is_small_and_has_every_value() -> None:
    assert len(sample()) < len(CELLS) / 10
    for axis, values in enumerate(AXES):
        assert {cell[axis] for cell in sample()} == set(values)

"""The products that are measured: every candidate agrees with the reference, and the CPU's flags only order them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsvl_cli.engine.kernels.choice_table import recall
from dsvl_cli.engine.kernels.choices import choose, find_difference
from dsvl_cli.engine.kernels.measured import list_routes, make_product, product_table
from dsvl_cli.engine.kernels.native.compiler import Compiled, load_library
from dsvl_cli.engine.kernels.questions import Question, ShapeClass
from dsvl_cli.engine.kernels.stored_weights import Kind, Weight, quantize
from dsvl_cli.engine.machine.detect import Machine
from tests.engine.kernels.test_choices import Clock, budget

WITHOUT = Compiled(None, "none")


def product_questions(
    machine: Machine, compiled: Compiled | None = None, kinds: Sequence[Kind] = tuple(Kind)
) -> list[Question]:
    return [question for question, _, _ in list_routes(machine, compiled, kinds)]


@pytest.mark.parametrize("compiled", [WITHOUT, None], ids=["torch", "native"])
def test_every_candidate_agrees_with_the_reference(compiled: Compiled | None) -> None:
    questions = product_questions(Machine(), compiled)
    assert len(questions) == len(Kind) * len(ShapeClass)
    for question in questions:
        for size in question.sizes[:2]:
            wanted = question.reference(size)
            for candidate in question.candidates:
                found = candidate.prepare(size)()
                assert find_difference(wanted, found, candidate.tolerance) is None, (question.name, candidate.name)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("size", [64, 256])
def test_the_operands_look_like_a_stored_weight(kind: Kind, size: int) -> None:
    product = make_product(kind, 3, size)
    stored = quantize(torch.randn(size, size), kind) if kind in (Kind.INT8, Kind.INT4) else None
    assert product.x.shape == (3, size)
    assert product.weight.shape == (size, size)
    if stored is None:
        assert len(product.weight.data.unique(dim=0)) == size
    else:
        assert stored.scales is not None
        assert product.weight.scales is not None
        assert product.weight.data.shape == stored.data.shape
        assert product.weight.data.dtype == stored.data.dtype
        assert product.weight.scales.shape == stored.scales.shape
        assert product.weight.scales.dtype == stored.scales.dtype


def test_flags_order_the_candidates_and_exclude_none() -> None:
    fast = Machine(cpu_features=frozenset({"amx_bf16", "amx_int8"}))
    for plain, native in zip(product_questions(Machine(), WITHOUT), product_questions(fast, WITHOUT), strict=True):
        assert plain.names == native.names
        assert plain.candidates[0].name == "float32"
        assert native.candidates[0].name == ("float32" if plain.name.startswith("float32") else "bfloat16")


def test_compiled_code_comes_first_where_there_is_any() -> None:
    if load_library().library is None:
        pytest.skip("no C compiler")
    questions = {question.name: question for question in product_questions(Machine(), kinds=[Kind.INT4])}
    assert [*questions] == ["int4 one row", "int4 few rows", "int4 prompts"]
    assert questions["int4 one row"].candidates[0].name == "native"


def test_a_wrong_real_candidate_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that treats 8-bit weights as if they had no scales."""

    def dequantize(_: object, weight: Weight, __: object = None) -> torch.Tensor:
        return weight.data.float().reshape(weight.shape)

    question = product_questions(Machine(), WITHOUT, [Kind.INT8])[0]
    wanted = {size: question.reference(size) for size in question.sizes}
    monkeypatch.setattr("dsvl_cli.engine.kernels.kernels.PlainKernels.dequantize", dequantize)
    found = choose(replace(question, reference=wanted.__getitem__), budget(Clock()))
    assert found.chosen == "reference"
    assert all(why.startswith("is wrong: off by") for why in found.dropped.values())


def test_with_and_without_compiled_code_have_separate_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSVL_CACHE_DIR", str(tmp_path))
    without = product_table(WITHOUT)
    assert without.path.parent == tmp_path
    compiled = load_library()
    if compiled.library is not None:
        assert product_table(compiled).path != without.path
    answers = recall(product_questions(Machine(), WITHOUT), without)
    assert {answer.reason for answer in answers.values()} == {"not measured yet"}

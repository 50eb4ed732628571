from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.kernels.native.compiler import Compiled
from dsvl_cli.engine.machine.detect import Gpu, Machine
from dsvl_cli.engine.machine.plan import DTYPE_BYTES
from dsvl_cli.engine.options import DEVICE_KINDS, LoadOptions
from dsvl_cli.engine.quantization import formats as quantization
from dsvl_cli.engine.quantization.formats import (
    CELLS,
    FORMATS,
    WIDTHS,
    Recipe,
    Verdict,
    check_stored_format,
    find_cell,
    find_stored_format,
    resolve_recipe,
)
from dsvl_cli.errors import DsvlError, UsageError
from tests.listeners import StrictEar

GB = 10**9
H200 = Gpu("NVIDIA H200", 140 * GB, (9, 0))
MACHINES = {
    "cpu": Machine(memory_free=16 * GB),
    "cuda": Machine(memory_free=16 * GB, cuda=(H200,)),
    "mps": Machine(memory_free=16 * GB, mps_free=12 * GB, macos=(15, 0)),
    "xpu": Machine(memory_free=16 * GB, xpu=(Gpu("Intel Arc", 16 * GB),)),
}


def resolve(kind: str, **options: Any) -> Recipe | None:
    return resolve_recipe(LoadOptions(device=kind, **options), MACHINES[kind], StrictEar())


def quantized_checkpoint(config: Any) -> Checkpoint:
    return Checkpoint("x", quantization.__file__, "deepseek_vl", True, 1, 1, {"quantization_config": config}, "0")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: object())
    compile_kernels(monkeypatch, works=False)


def compile_kernels(monkeypatch: pytest.MonkeyPatch, *, works: bool) -> None:
    library: Any = object() if works else None
    monkeypatch.setattr(quantization, "load_library", lambda: Compiled(library, "a fake"))


def test_every_cell_is_judged() -> None:
    assert CELLS.keys() == set(product(FORMATS, DEVICE_KINDS, DTYPE_BYTES))
    for cell in CELLS.values():
        assert cell.reason
        assert (cell.instead is not None) == (cell.verdict is Verdict.FAILS)


def test_only_what_was_run_is_said_to_work() -> None:
    assert {kind for (_, kind, _), cell in CELLS.items() if cell.verdict is Verdict.WORKS} == {"cpu"}


@pytest.mark.parametrize(("machine", "measured"), [("x86_64", True), ("AMD64", True), ("arm64", False), ("", False)])
def test_other_cpus_than_those_measured_are_reported(
    monkeypatch: pytest.MonkeyPatch, machine: str, measured: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    for name in ("int4", "bnb-nf4", "torchao-int8"):
        cell = quantization._judge(name, "cpu", "bfloat16")
        assert cell.verdict is Verdict.WORKS
        assert ("not on this kind of CPU" not in cell.reason) is measured


@pytest.mark.parametrize(("name", "kind", "dtype"), CELLS)
def test_a_cell_is_let_through_or_refused_with_one_that_can_work(name: Any, kind: str, dtype: Any) -> None:
    cell = find_cell(name, f"{kind}:0" if kind == "cuda" else kind, dtype)
    if cell.verdict is not Verdict.FAILS:
        recipe = resolve(kind, quantization=name, dtype=dtype)
        assert recipe is not None
        assert recipe.format is FORMATS[name]
        return
    with pytest.raises(DsvlError, match=f"{name} does not work on {kind} in {dtype}") as caught:
        resolve(kind, quantization=name, dtype=dtype)
    flag, value = str(caught.value.hint).removeprefix("use ").split()
    other = (value, dtype) if flag == "--quantization" else (name, value)
    assert find_cell(other[0], kind, other[1]).verdict is not Verdict.FAILS


@pytest.mark.parametrize(("width", "kind", "dtype"), list(product(WIDTHS, DEVICE_KINDS, DTYPE_BYTES)))
def test_a_width_is_always_something_that_can_work(width: Any, kind: str, dtype: Any) -> None:
    ear = StrictEar()
    recipe = resolve_recipe(LoadOptions(device=kind, dtype=dtype, quantization=width), MACHINES[kind], ear)
    assert recipe is not None
    assert f"{recipe.format.bits}bit" == width
    assert find_cell(recipe.format.name, kind, dtype).verdict is not Verdict.FAILS
    assert [choice.value for choice in ear.choices] == [recipe.format.name]


@pytest.mark.parametrize(("width", "own"), [("4bit", "int4"), ("8bit", "int8")])
def test_own_kernels_are_the_best_where_they_are_compiled(
    monkeypatch: pytest.MonkeyPatch, width: Any, own: str
) -> None:
    for native in (False, True):
        compile_kernels(monkeypatch, works=native)
        recipe = resolve("cpu", quantization=width)
        assert recipe is not None
        assert (recipe.format.name == own) is native
    with pytest.raises(DsvlError, match="only the language model"):
        resolve("cpu", quantization=own, include_vision=True)


def test_kernels_are_compiled_only_for_a_width_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_them() -> Compiled:
        raise AssertionError("nothing asked for kernels")

    monkeypatch.setattr(quantization, "load_library", compile_them)
    resolve("cpu")
    for name in ("int4", "int8", "bnb-nf4"):
        resolve("cpu", quantization=name)
    for width, kind in product(WIDTHS, ("cuda", "mps", "xpu")):
        resolve(kind, quantization=width)
    for width in WIDTHS:
        options: Any = {"device": "cpu", "quantization": width}
        assert resolve_recipe(LoadOptions(**options), MACHINES["cpu"], StrictEar(), to_store=True) is not None
        with pytest.raises(AssertionError, match="asked for kernels"):
            resolve("cpu", quantization=width)


@pytest.mark.parametrize(("width", "kind", "dtype"), list(product(WIDTHS, DEVICE_KINDS, DTYPE_BYTES)))
def test_what_is_to_be_stored_has_a_format_for_checkpoints(
    monkeypatch: pytest.MonkeyPatch, width: Any, kind: str, dtype: Any
) -> None:
    compile_kernels(monkeypatch, works=True)
    machine = MACHINES[kind]
    options = LoadOptions(device=kind, dtype=dtype, quantization=width)
    recipe = resolve_recipe(options, machine, StrictEar(), to_store=True)
    assert recipe is not None
    assert recipe.format.is_stored
    for name in ("int4", "int8") if kind == "cpu" else ():
        with pytest.raises(DsvlError, match="only for loading") as caught:
            resolve_recipe(replace(options, quantization=name), machine, StrictEar(), to_store=True)
        assert FORMATS[str(caught.value.hint).split()[-1]].is_stored


def test_nothing_is_quantized_unasked() -> None:
    assert resolve("cpu") is None


def test_names_and_sizes_that_do_not_exist_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="int3"):
        resolve("cpu", quantization="int3")
    with pytest.raises(UsageError, match="100"):
        resolve("cpu", quantization="4bit", group_size=100)


@pytest.mark.parametrize(("name", "way"), [("bnb-nf4", "bitsandbytes"), ("torchao-int8", "dsvl[torchao]")])
def test_a_missing_package_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch, name: Any, way: str) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda package: None)
    with pytest.raises(DsvlError, match="not installed") as caught:
        resolve("cpu", quantization=name)
    assert way in str(caught.value.hint)


def test_quantizing_more_layers_is_warned_about() -> None:
    ear = StrictEar()
    options = LoadOptions(device="cpu", quantization="8bit", include_vision=True, include_head=True)
    assert resolve_recipe(options, MACHINES["cpu"], ear) is not None
    assert len(ear.notes) == 2


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bnb-int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bnb-nf4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bnb-fp4"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, "torchao-int8"),
    ],
)
def test_a_quantized_checkpoint_is_recognised_and_takes_no_other_format(config: Any, name: Any) -> None:
    checkpoint = quantized_checkpoint(config)
    assert find_stored_format(checkpoint) == name
    check_stored_format(checkpoint, None, "cpu", "bfloat16")
    check_stored_format(checkpoint, Recipe(FORMATS[name]), "cpu", "bfloat16")
    other = FORMATS["torchao-int8-dynamic"]
    with pytest.raises(DsvlError, match=f"already quantized, as {name}"):
        check_stored_format(checkpoint, Recipe(other), "cpu", "bfloat16")


def test_a_stored_format_that_cannot_work_here_is_refused() -> None:
    config = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}}
    with pytest.raises(DsvlError, match="torchao-int4 does not work on cpu"):
        check_stored_format(quantized_checkpoint(config), None, "cpu", "bfloat16")


@pytest.mark.parametrize(
    "config", [{"quant_method": "gptq"}, {}, None, [], "awq", {"quant_method": "torchao", "quant_type": "x"}]
)
def test_what_others_quantized_is_refused(config: Any) -> None:
    with pytest.raises(DsvlError, match="does not support"):
        find_stored_format(quantized_checkpoint(config))

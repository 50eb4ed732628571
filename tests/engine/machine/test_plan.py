from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.machine.detect import Gpu, Machine
from dsvl_cli.engine.machine.plan import (
    Plan,
    check_forecast,
    choose_attention,
    choose_device,
    choose_dtype,
    explain_slowness,
    forecast_memory,
    make_plan,
)
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.errors import DsvlError, UsageError
from tests.listeners import StrictEar

if TYPE_CHECKING:
    pass

GB = 10**9
OLD_CPU = Machine(memory_free=16 * GB)
NEW_CPU = Machine(memory_free=16 * GB, cpu_features=frozenset({"avx512_bf16"}))
T4 = Gpu("Tesla T4", 15 * GB, (7, 5))
H200 = Gpu("NVIDIA H200", 140 * GB, (9, 0))
TWO = Machine(memory_free=64 * GB, cuda=(Gpu("NVIDIA L4", 10 * GB, (8, 9)), Gpu("NVIDIA L4", 20 * GB, (8, 9))))
MAC = Machine(memory_free=16 * GB, mps_free=12 * GB, macos=(13, 6))
ARC = Machine(memory_free=16 * GB, xpu=(Gpu("Intel Arc", 16 * GB),))
MACHINES = [OLD_CPU, NEW_CPU, Machine(cuda=(T4,)), Machine(cuda=(H200,)), TWO, MAC, ARC]

SEVEN_B: dict[str, Any] = {
    "model_type": "deepseek_vl_hybrid",
    "text_config": {"num_hidden_layers": 30, "max_position_embeddings": 16384},
    "high_res_vision_config": {},
}


def make_checkpoint(parameters: int, config: dict[str, Any]) -> Checkpoint:
    return Checkpoint("7b", Path(), "deepseek_vl_hybrid", True, 4 * GB, parameters, config, "0")


def plan_for(machine: Machine, **options: Any) -> Plan:
    return make_plan(LoadOptions(**options), "deepseek_vl", StrictEar(), machine)


# --- automatic choices


@pytest.mark.parametrize(
    ("machine", "device", "dtype"),
    [
        (OLD_CPU, "cpu", "bfloat16"),
        (NEW_CPU, "cpu", "bfloat16"),
        (Machine(cpu_features=frozenset({"amx_bf16"})), "cpu", "bfloat16"),
        (Machine(cpu_features=frozenset({"bf16"})), "cpu", "bfloat16"),
        (Machine(cuda=(T4,)), "cuda:0", "float16"),
        (Machine(cuda=(H200,)), "cuda:0", "bfloat16"),
        (Machine(cuda=(Gpu("Tesla K80", 12 * GB, (3, 7)),)), "cuda:0", "float32"),
        (TWO, "cuda:1", "bfloat16"),
        (MAC, "mps", "float16"),
        (ARC, "xpu", "bfloat16"),
        (Machine(cuda=(T4,), xpu=ARC.xpu, mps_free=GB), "cuda:0", "float16"),
    ],
)
def test_the_fastest_device_and_the_smallest_fast_dtype_are_taken(machine: Machine, device: str, dtype: str) -> None:
    plan = plan_for(machine)
    assert (plan.device, plan.dtype, plan.attention, plan.device_map) == (device, dtype, "sdpa", device)
    assert plan.available_bytes == machine.free_bytes(device)


@pytest.mark.parametrize("machine", MACHINES)
def test_an_automatic_plan_is_never_slow_and_every_choice_has_a_reason(machine: Machine) -> None:
    ear = StrictEar()
    plan = make_plan(LoadOptions(), "deepseek_vl", ear, machine)
    assert ear.notes == []
    assert ear.choices == list(plan.choices)
    assert [choice.what for choice in ear.choices] == ["device", "dtype", "attention"]
    assert all(choice.reason and choice.reason != "requested" for choice in ear.choices)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps", "xpu"])
def test_what_is_asked_for_is_done_or_refused_but_never_changed(machine: Machine, device: str, dtype: Any) -> None:
    there = device == "auto" or any(name.split(":")[0] == device or name == device for name in machine.devices)
    if not there:
        with pytest.raises(DsvlError) as caught:
            plan_for(machine, device=device, dtype=dtype)
        assert str(caught.value.hint).startswith(f"this machine has {', '.join(machine.devices)}")
    elif dtype == "bfloat16" and machine is MAC and device != "cpu":
        with pytest.raises(DsvlError, match="macOS 14"):
            plan_for(machine, device=device, dtype=dtype)
    else:
        plan = plan_for(machine, device=device, dtype=dtype)
        assert plan.dtype == dtype
        assert device == "auto" or plan.device.startswith(device)


# --- requests


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU ", "", "cuda:-1", "mps:0"])
def test_a_device_that_does_not_exist_at_all_is_a_usage_error(device: str) -> None:
    with pytest.raises(UsageError, match="device is "):
        choose_device(device, TWO)


def test_torch_without_cuda_is_named_where_a_driver_is_there() -> None:
    machine = Machine(torch_without_cuda=True)
    assert "without CUDA" in choose_device("auto", machine).reason
    with pytest.raises(DsvlError) as caught:
        choose_device("cuda", machine)
    assert "pytorch.org" in str(caught.value.hint)


def test_slow_requests_are_said_aloud() -> None:
    for machine, dtype, better in [
        (NEW_CPU, "float16", "bfloat16"),
        (OLD_CPU, "float16", "bfloat16"),
        (Machine(cuda=(T4,)), "bfloat16", "float16"),
    ]:
        ear = StrictEar()
        make_plan(LoadOptions(dtype=dtype), "deepseek_vl", ear, machine)  # type: ignore[arg-type]
        assert len(ear.notes) == 1
        assert "slow" in ear.notes[0]
        assert f"--dtype {better}" in ear.notes[0]
        device = choose_device("auto", machine).value
        assert explain_slowness(better, device, machine) is None


def test_bfloat16_on_a_mac_needs_a_new_system() -> None:
    with pytest.raises(DsvlError, match="macOS 14"):
        choose_dtype("bfloat16", "mps", MAC)
    assert choose_dtype("bfloat16", "mps", Machine(mps_free=GB, macos=(15, 0))).value == "bfloat16"


@pytest.mark.parametrize(
    ("machine", "device", "dtype", "obstacle"),
    [
        (NEW_CPU, "cpu", "bfloat16", "CUDA"),
        (Machine(cuda=(T4,), flash_attn=True), "cuda:0", "float16", "capability 8.0"),
        (Machine(cuda=(H200,), flash_attn=True), "cuda:0", "float32", "16 bits"),
        (Machine(cuda=(H200,)), "cuda:0", "bfloat16", "flash-attn"),
        (Machine(cuda=(H200,), flash_attn=True), "cpu", "bfloat16", "CUDA"),
    ],
)
def test_flash_attention_that_cannot_work_is_refused(machine: Machine, device: str, dtype: str, obstacle: str) -> None:
    with pytest.raises(DsvlError, match=obstacle) as caught:
        choose_attention("flash_attention_2", device, dtype, machine)
    assert "sdpa" in str(caught.value.hint)


def test_flash_attention_is_set_for_the_parts_that_have_it() -> None:
    machine = Machine(cuda=(H200,), flash_attn=True)
    options = LoadOptions(attn_implementation="flash_attention_2")
    assert make_plan(options, "deepseek_vl", StrictEar(), machine).attention == "flash_attention_2"
    assert make_plan(options, "deepseek_vl_hybrid", StrictEar(), machine).attention == {
        "text_config": "flash_attention_2",
        "vision_config": "sdpa",
        "high_res_vision_config": "sdpa",
    }
    eager = make_plan(LoadOptions(attn_implementation="eager"), "deepseek_vl_hybrid", StrictEar(), machine)
    assert eager.attention == "eager"


@pytest.mark.parametrize("name", ["kernels-community/flash-attn", "org/name", "flash_attention_3", "", "paged|sdpa"])
def test_kernels_of_the_hub_are_never_used(name: str) -> None:
    with pytest.raises(UsageError, match="attn_implementation is "):
        choose_attention(name, "cuda:0", "bfloat16", Machine(cuda=(H200,), flash_attn=True))


def test_layers_are_spread_over_gpus_only() -> None:
    plan = plan_for(TWO, device_map="auto")
    assert plan.device_map == "auto"
    assert plan.max_memory is not None
    assert plan.max_memory.keys() == {0, 1}
    assert plan.available_bytes == sum(plan.max_memory.values()) < 30 * GB
    mixed = plan_for(Machine(cuda=(H200, T4)), device_map="auto")
    assert (mixed.device, mixed.dtype) == ("cuda:0", "float16"), "every GPU can compute in the dtype"
    for machine in (NEW_CPU, Machine(cuda=(H200,)), MAC):
        with pytest.raises(DsvlError, match="two CUDA devices"):
            plan_for(machine, device_map="auto")
    with pytest.raises(UsageError, match="names one"):
        plan_for(TWO, device_map="auto", device="cuda:1")


# --- the estimate of memory


def test_the_forecast_of_7b_is_what_can_be_counted_by_hand() -> None:
    plan = plan_for(Machine(cuda=(H200,)))
    forecast = forecast_memory(make_checkpoint(7_340_000_000, SEVEN_B), plan)
    assert forecast.weights_bytes == 14_680_000_000
    # keys and values, 30 layers of 32 heads of 128 numbers of 2 bytes, for 4,096 tokens
    assert forecast.cache_bytes == 2 * 30 * 32 * 128 * 4096 * 2
    assert 0.3 * GB < forecast.working_bytes < 2 * GB
    check_forecast(forecast, force=False)


def test_a_short_context_and_shared_heads_make_the_cache_smaller() -> None:
    text = {"hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 3}
    config = {"text_config": text | {"max_position_embeddings": 100}}
    forecast = forecast_memory(make_checkpoint(1000, config), plan_for(OLD_CPU, dtype="float32"))
    assert (forecast.cache_tokens, forecast.cache_bytes) == (100, 2 * 3 * 2 * 64 * 100 * 4)


def test_a_quantized_checkpoint_weighs_what_is_stored() -> None:
    config = SEVEN_B | {"quantization_config": {"load_in_4bit": True}}
    checkpoint = make_checkpoint(7_340_000_000, config)
    forecast = forecast_memory(checkpoint, plan_for(OLD_CPU))
    assert forecast.weights_bytes == checkpoint.weight_bytes


def test_what_does_not_fit_is_refused_with_figures_and_ways_out() -> None:
    forecast = forecast_memory(make_checkpoint(7_340_000_000, SEVEN_B), plan_for(OLD_CPU, dtype="float32"))
    with pytest.raises(DsvlError) as caught:
        check_forecast(forecast, force=False)
    message, hint = caught.value.message, str(caught.value.hint)
    assert all(figure in message for figure in ("29.4 GB for weights", "4,096 tokens", "cpu has 16.0 GB free"))
    assert all(way in hint for way in ("--dtype bfloat16", "4 bits", "--model tiny", "--force"))
    check_forecast(forecast, force=True)


@given(parameters=st.integers(1, 10**11), free=st.integers(0, 10**12))
def test_a_model_is_refused_exactly_where_it_takes_more_than_is_free(parameters: int, free: int) -> None:
    plan = plan_for(Machine(memory_free=free))
    forecast = forecast_memory(make_checkpoint(parameters, SEVEN_B), plan)
    try:
        check_forecast(forecast, force=False)
        refused = False
    except DsvlError:
        refused = True
    assert refused is (forecast.weights_bytes + forecast.cache_bytes + forecast.working_bytes > free)


@pytest.mark.parametrize("text", [None, {}, {"hidden_size": None}, {"num_hidden_layers": "30"}, {"head_dim": -1}])
def test_nonsense_in_the_configuration_is_read_as_the_default(text: Any) -> None:
    usual = forecast_memory(make_checkpoint(1000, {"text_config": {}}), plan_for(OLD_CPU))
    assert forecast_memory(make_checkpoint(1000, {"text_config": text}), plan_for(OLD_CPU)) == usual

"""Device, dtype and attention backend, each chosen with its reason; and whether the model will fit.

Every choice is a function of a `Machine`, a plain description, so that any machine can be tested on any other.
`make_plan` puts them together.

    device     requested, else CUDA (the GPU with the most free memory), else MPS, else XPU, else the CPU
    dtype      CUDA  bfloat16 from compute capability 8.0, float16 from 5.3, else float32
               MPS   float16;  XPU  bfloat16
               CPU   bfloat16: natively where the CPU can, else the weights are widened where they are multiplied;
                     float16 where the weights are stored so and used where they lie
    attention  sdpa; flash_attention_2 only where it is asked for and can work

Nothing is ever offloaded to another device without being asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.checkpoint.layouts import text_settings
from dsvl_cli.engine.machine.detect import NATIVE_BF16, Gpu, Machine, detect_machine
from dsvl_cli.engine.options import check_value
from dsvl_cli.engine.progress import Choice, Listener
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DsvlError, UsageError

if TYPE_CHECKING:
    from dsvl_cli.engine.checkpoint.find import Checkpoint
    from dsvl_cli.engine.options import LoadOptions

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FORECAST_TOKENS = 4096
_GPU_SHARE = 0.9  # of a GPU's free memory, the part that weights spread by `device_map` may fill


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is to be loaded.

    Attributes:
        device: where the inputs go: `cpu`, `cuda:0`, `mps`, `xpu`.
        dtype: `float32`, `bfloat16` or `float16`.
        attention: for transformers' `attn_implementation`: one for all parts, or one for each.
        device_map: for `from_pretrained`: the device, or `auto` over several GPUs.
        max_memory: with `auto`, the bytes that each GPU may take; the CPU and the disk are not in it.
        available_bytes: what the model may take together.
        choices: what was chosen automatically, with the reasons.
        notes: what makes the plan slow; every user should read it.
    """

    device: str
    dtype: str
    attention: str | dict[str, str]
    device_map: str
    max_memory: dict[int, int] | None
    available_bytes: int
    choices: tuple[Choice, ...] = ()
    notes: tuple[str, ...] = ()


def make_plan(
    options: LoadOptions,
    model_type: str,
    listener: Listener,
    machine: Machine | None = None,
    stored_dtype: str | None = None,
) -> Plan:
    """Choose how to load a model, and tell the listener what was chosen and why.

    Args:
        options: what the user asked for.
        model_type: `deepseek_vl` or `deepseek_vl_hybrid`.
        listener: is told.
        machine: None detects this one.
        stored_dtype: of weights that our own decoder can use on a CPU where they lie in the files; None of others.

    Raises:
        UsageError: the options contradict each other or name nothing that exists.
        DsvlError: what was asked for cannot work on this machine.
    """
    machine = machine or detect_machine()
    if options.device_map is not None:
        device = choose_devices(options.device, machine)
        slowest = f"cuda:{min(range(len(machine.cuda)), key=lambda index: machine.cuda[index].capability)}"
        max_memory = {index: int(gpu.free_bytes * _GPU_SHARE) for index, gpu in enumerate(machine.cuda)}
        available = sum(max_memory.values())
    else:
        device = choose_device(options.device, machine)
        slowest, max_memory, available = device.value, None, machine.free_bytes(device.value)
    mapped_dtype = stored_dtype if options.attn_implementation in ("auto", "sdpa") else None
    dtype = choose_dtype(options.dtype, slowest, machine, mapped_dtype)
    attention = choose_attention(options.attn_implementation, slowest, dtype.value, machine)
    slow = explain_slowness(dtype.value, slowest, machine, mapped_dtype)
    plan = Plan(
        device=device.value,
        dtype=dtype.value,
        attention=spread_attention(attention.value, model_type),
        device_map="auto" if max_memory is not None else device.value,
        max_memory=max_memory,
        available_bytes=available,
        choices=(device, dtype, attention),
        notes=(slow,) if slow else (),
    )
    for choice in plan.choices:
        listener.choice(choice)
    for note in plan.notes:
        listener.note(note)
    return plan


def choose_device(requested: str, machine: Machine) -> Choice:
    """Choose the device: the requested one, or the fastest kind that is there.

    Raises:
        UsageError: `requested` names no kind of device.
        DsvlError: it is not there.
    """
    best = max(range(len(machine.cuda)), key=lambda index: machine.cuda[index].free_bytes, default=None)
    if requested == "auto":
        if best is not None:
            several = ", the one with the most free memory" if len(machine.cuda) > 1 else ""
            return Choice("device", f"cuda:{best}", f"torch has a GPU: {machine.cuda[best].name}{several}")
        if machine.mps_free is not None:
            return Choice("device", "mps", "torch has Apple's GPU")
        if machine.xpu:
            return Choice("device", "xpu", f"torch has a GPU: {machine.xpu[0].name}")
        blind = "; an NVIDIA driver is here, but this torch is built without CUDA" if machine.torch_without_cuda else ""
        return Choice("device", "cpu", f"torch has no GPU{blind}")
    check_value("device", requested)
    value = f"cuda:{best}" if requested == "cuda" and best is not None else requested
    if value not in machine.devices:
        hint = f"this machine has {', '.join(machine.devices)}"
        if requested.startswith("cuda") and machine.torch_without_cuda:
            hint = "the installed torch is built without CUDA: install it from https://pytorch.org"
        raise DsvlError(f"torch has no device {requested} here", hint)
    return Choice("device", value, "asked for")


def choose_devices(requested: str, machine: Machine) -> Choice:
    """Choose all GPUs, for layers that are spread over them; the value is the one that the inputs go to.

    Raises:
        UsageError: a single device was asked for too.
        DsvlError: there are fewer than two CUDA devices.
    """
    if requested not in ("auto", "cuda"):
        raise UsageError(
            f"--device-map auto spreads over all GPUs, and --device {requested} names one", "drop one of them"
        )
    if len(machine.cuda) < 2:
        raise DsvlError(
            f"--device-map auto needs two CUDA devices, torch has {len(machine.cuda)}",
            "leave it out: dsvl moves no layers to the CPU or the disk",
        )
    return Choice("device", "cuda:0", f"the first of the {len(machine.cuda)} GPUs that the layers are spread over")


def choose_dtype(requested: str, device: str, machine: Machine, mapped_dtype: str | None = None) -> Choice:
    """Choose the dtype of weights and computation: the requested one, or the narrowest that is fast on the device.

    Raises:
        DsvlError: the device cannot compute in the requested one.
    """
    if requested != "auto":
        if requested == "bfloat16" and device == "mps" and machine.macos < (14, 0):
            raise DsvlError("bfloat16 on Apple's GPU needs macOS 14", "use --dtype float16")
        return Choice("dtype", requested, "asked for")
    if device.startswith("cuda"):
        return _choose_cuda_dtype(machine.gpu(device))
    if device == "mps":
        return Choice("dtype", "float16", "every Apple GPU computes in it; bfloat16 needs macOS 14 and newer chips")
    if device.startswith("xpu"):
        return Choice("dtype", "bfloat16", "Intel's GPUs compute in it")
    if mapped_dtype == "float16":
        return Choice("dtype", "float16", "the weights are stored in it and used where they lie: nothing is rounded")
    native = next((name for feature, name in NATIVE_BF16.items() if feature in machine.cpu_features), None)
    if native is not None:
        return Choice("dtype", "bfloat16", f"the CPU multiplies it natively ({native})")
    return Choice("dtype", "bfloat16", "half the memory; widened to float32 where it is multiplied")


def _choose_cuda_dtype(gpu: Gpu | None) -> Choice:
    capability = gpu.capability if gpu is not None else (0, 0)
    version = f"compute capability {capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return Choice("dtype", "bfloat16", f"{version}: from 8.0 on bfloat16 is native")
    if capability >= (5, 3):
        return Choice("dtype", "float16", f"{version}: bfloat16 is native from 8.0 on, float16 from 5.3 on")
    return Choice("dtype", "float32", f"{version}: float16 is native from 5.3 on")


def explain_slowness(dtype: str, device: str, machine: Machine, mapped_dtype: str | None = None) -> str | None:
    """Say why a dtype is slow on a device; None where it is not."""
    gpu = machine.gpu(device)
    if gpu is not None and dtype == "bfloat16" and device.startswith("cuda") and gpu.capability < (8, 0):
        return f"bfloat16 is slow on {gpu.name}: it is native from compute capability 8.0 on; try --dtype float16"
    if device == "cpu" and dtype == "float16" and mapped_dtype is None:
        return "float16 is slow on a CPU: it is widened for every token; try --dtype bfloat16"
    return None


def choose_attention(requested: str, device: str, dtype: str, machine: Machine) -> Choice:
    """Choose the attention backend; what cannot work is refused before anything is loaded.

    transformers would fetch native code from the hub for flash attention without its package, and for any `org/name`.

    Raises:
        UsageError: `requested` is no backend.
        DsvlError: flash attention cannot work here.
    """
    if requested == "auto":
        return Choice("attention", "sdpa", "torch's own kernels, which every device has")
    check_value("attn_implementation", requested)
    if requested == "flash_attention_2":
        gpu = machine.gpu(device) if device.startswith("cuda") else None
        obstacle = None
        if gpu is None:
            obstacle = f"needs a CUDA GPU, and the device is {device}"
        elif gpu.capability < (8, 0):
            obstacle = f"needs compute capability 8.0, and {gpu.name} has {gpu.capability[0]}.{gpu.capability[1]}"
        elif dtype == "float32":
            obstacle = "computes in 16 bits, and the dtype is float32"
        elif not machine.flash_attn:
            obstacle = "needs the package flash-attn, which is not installed"
        if obstacle is not None:
            raise DsvlError(f"flash_attention_2 {obstacle}", "use --attn-implementation sdpa")
    return Choice("attention", requested, "asked for")


def spread_attention(attention: str, model_type: str) -> str | dict[str, str]:
    """Write the backend as `from_pretrained` takes it: 7b's SAM tower has only eager and sdpa."""
    if attention == "flash_attention_2" and model_type == "deepseek_vl_hybrid":
        return {"text_config": attention, "vision_config": "sdpa", "high_res_vision_config": "sdpa"}
    return attention


@dataclass(frozen=True, slots=True)
class Forecast:
    """The memory that a model will take, in bytes.

    Attributes:
        name: what the user calls the model.
        plan: how it would be loaded.
        weights_bytes: its parameters in the plan's dtype; as stored, for a quantized checkpoint.
        cache_tokens: 4,096, or the model's context where that is shorter.
        cache_bytes: the KV cache of so many tokens.
        working_bytes: what the prefill of so many tokens holds for a while.
        quantized: whether the checkpoint is quantized, or is while it is loaded.
    """

    name: str
    plan: Plan
    weights_bytes: int
    cache_tokens: int
    cache_bytes: int
    working_bytes: int
    quantized: bool = False

    @property
    def total_bytes(self) -> int:
        """All together."""
        return self.weights_bytes + self.cache_bytes + self.working_bytes


def forecast_memory(checkpoint: Checkpoint, plan: Plan, weights_bytes: int | None = None) -> Forecast:
    """Foretell the memory of a model from its configuration and the headers of its weights.

    `weights_bytes` is what the weights will take where they are quantized while they are loaded.
    """
    text = text_settings(checkpoint.config)
    tokens = min(FORECAST_TOKENS, text["max_position_embeddings"])
    width = DTYPE_BYTES[plan.dtype]
    quantized = checkpoint.is_quantized or weights_bytes is not None
    if weights_bytes is None:
        weights_bytes = checkpoint.weight_bytes if checkpoint.is_quantized else checkpoint.parameters * width
    # The widest moment of one layer: residual, normed input and output; gate, up and their product.
    layer = tokens * 3 * (text["hidden_size"] + text["intermediate_size"]) * width
    return Forecast(
        name=checkpoint.name,
        plan=plan,
        weights_bytes=weights_bytes,
        cache_tokens=tokens,
        cache_bytes=2 * text["num_hidden_layers"] * text["num_key_value_heads"] * text["head_dim"] * tokens * width,
        working_bytes=max(layer, _tower_bytes(checkpoint.config.get("high_res_vision_config"), width)),
        quantized=quantized,
    )


def _tower_bytes(sam: dict[str, Any] | None, width: int) -> int:
    """Count the scores and the position bias of one global attention of 7b's SAM tower, 64 x 64 patches."""
    if sam is None:
        return 0
    patches = (_number(sam, "image_size", 1024) // _number(sam, "patch_size", 16)) ** 2
    return 2 * _number(sam, "num_attention_heads", 12) * patches**2 * width


def _number(config: dict[str, Any], key: str, default: int) -> int:
    """Return a positive number of a configuration; the default where it is left out, null or nonsense."""
    value = config.get(key)
    return value if isinstance(value, int) and value > 0 else default


def check_forecast(forecast: Forecast, *, force: bool) -> None:
    """Refuse a model that will not fit.

    Raises:
        DsvlError: it takes more than is free, and `force` is False; with the figures and the ways out.
    """
    if force or forecast.total_bytes <= forecast.plan.available_bytes:
        return
    where = "the GPUs have" if forecast.plan.max_memory else f"{forecast.plan.device} has"
    raise DsvlError(
        f"{forecast.name} in {forecast.plan.dtype} needs {format_bytes(forecast.total_bytes)} "
        f"({format_bytes(forecast.weights_bytes)} for weights, {format_bytes(forecast.cache_bytes)} for the cache of "
        f"{forecast.cache_tokens:,} tokens, {format_bytes(forecast.working_bytes)} to work in), "
        f"and {where} {format_bytes(forecast.plan.available_bytes)} free",
        f"{_suggest_smaller(forecast)}; --force tries all the same",
    )


def _suggest_smaller(forecast: Forecast) -> str:
    ways = []
    if forecast.plan.dtype == "float32" and not forecast.quantized:
        ways.append("--dtype bfloat16 takes half")
    if not forecast.quantized:
        ways.append("--quantization 4bit takes little more than 4 bits a weight")
    return ", ".join([*ways, "--model tiny fits everywhere"])

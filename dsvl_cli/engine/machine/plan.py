"""Device, dtype and attention backend, each chosen with a reason; and whether the model fits in memory.

Every choice depends only on a `Machine`, a plain description, so any machine can be tested on any other. `make_plan`
combines them.

    device     as requested, else CUDA (the GPU with the most free memory), else MPS, else XPU, else the CPU
    dtype      CUDA  bfloat16 from compute capability 8.0, float16 from 5.3, else float32
               MPS   float16;  XPU  bfloat16
               CPU   bfloat16: natively if the CPU can, else the weights are upcast to float32 for each product;
                     float16 if the weights are stored in it and used memory-mapped
    attention  sdpa; flash_attention_2 only if it is requested and can work

Nothing is offloaded to another device unless requested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.checkpoint.layouts import text_settings
from dsvl_cli.engine.machine.detect import NATIVE_BF16, Gpu, Machine, detect_machine
from dsvl_cli.engine.options import check_value
from dsvl_cli.engine.progress import Choice, Listener
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DoesNotFit, DsvlError, UsageError

if TYPE_CHECKING:
    from dsvl_cli.engine.checkpoint.find import Checkpoint
    from dsvl_cli.engine.options import LoadOptions

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FORECAST_TOKENS = 4096
_GPU_SHARE = 0.9  # the part of a GPU's free memory that weights spread by `device_map` may use


@dataclass(frozen=True, slots=True)
class Plan:
    """How to load a model.

    Attributes:
        device: where the inputs go: `cpu`, `cuda:0`, `mps`, `xpu`.
        dtype: `float32`, `bfloat16` or `float16`.
        attention: for transformers' `attn_implementation`: one for all parts, or one for each.
        device_map: for `from_pretrained`: the device, or `auto` for several GPUs.
        max_memory: with `auto`, the bytes that each GPU may use; the CPU and the disk are not listed.
        available_bytes: what the model may use in total.
        choices: the automatic choices, with their reasons.
        notes: what makes the plan slow, for every user to read.
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
    """Choose how to load a model, and report every choice and its reason to the listener.

    Args:
        options: what the user requested.
        model_type: `deepseek_vl` or `deepseek_vl_hybrid`.
        listener: receives the choices and notes.
        machine: the machine to plan for; by default this one.
        stored_dtype: of weights that our decoder can use memory-mapped on a CPU; None for others.

    Raises:
        UsageError: the options contradict each other, or a value does not exist.
        DsvlError: a request cannot work on this machine.
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
    """Choose the device: the requested one, or the fastest kind available.

    Raises:
        UsageError: `requested` is not a device name.
        DsvlError: the device is not available.
    """
    best = max(range(len(machine.cuda)), key=lambda index: machine.cuda[index].free_bytes, default=None)
    if requested == "auto":
        if best is not None:
            several = ", the one with the most free memory" if len(machine.cuda) > 1 else ""
            return Choice("device", f"cuda:{best}", f"torch finds a GPU: {machine.cuda[best].name}{several}")
        if machine.mps_free is not None:
            return Choice("device", "mps", "torch finds Apple's GPU")
        if machine.xpu:
            return Choice("device", "xpu", f"torch finds a GPU: {machine.xpu[0].name}")
        driver = (
            "; an NVIDIA driver is installed, but torch is built without CUDA" if machine.torch_without_cuda else ""
        )
        return Choice("device", "cpu", f"torch finds no GPU{driver}")
    check_value("device", requested)
    value = f"cuda:{best}" if requested == "cuda" and best is not None else requested
    if value not in machine.devices:
        hint = f"this machine has {', '.join(machine.devices)}"
        if requested.startswith("cuda") and machine.torch_without_cuda:
            hint = "the installed torch is built without CUDA: install one with CUDA from https://pytorch.org"
        raise DsvlError(f"torch finds no device {requested} on this machine", hint)
    return Choice("device", value, "requested")


def choose_devices(requested: str, machine: Machine) -> Choice:
    """Choose all GPUs, to spread the layers over them; the value is the device of the inputs.

    Raises:
        UsageError: a single device is requested too.
        DsvlError: there are fewer than two CUDA devices.
    """
    if requested not in ("auto", "cuda"):
        raise UsageError(
            f"--device-map auto uses all GPUs, but --device {requested} names one", "omit one of the two options"
        )
    if len(machine.cuda) < 2:
        raise DsvlError(
            f"--device-map auto needs two CUDA devices; torch finds {len(machine.cuda)}",
            "omit it: dsvl does not offload layers to the CPU or the disk",
        )
    return Choice("device", "cuda:0", f"the first of the {len(machine.cuda)} GPUs that share the layers")


def choose_dtype(requested: str, device: str, machine: Machine, mapped_dtype: str | None = None) -> Choice:
    """Choose the dtype of weights and computation: the requested one, or the smallest that is fast on the device.

    Raises:
        DsvlError: the device does not support the requested dtype.
    """
    if requested != "auto":
        if requested == "bfloat16" and device == "mps" and machine.macos < (14, 0):
            raise DsvlError("bfloat16 on Apple's GPU needs macOS 14", "use --dtype float16")
        return Choice("dtype", requested, "requested")
    if device.startswith("cuda"):
        return _choose_cuda_dtype(machine.gpu(device))
    if device == "mps":
        return Choice("dtype", "float16", "native on every Apple GPU; bfloat16 needs macOS 14 and a newer chip")
    if device.startswith("xpu"):
        return Choice("dtype", "bfloat16", "native on Intel's GPUs")
    if mapped_dtype == "float16":
        return Choice("dtype", "float16", "the weights are stored in it and used memory-mapped, without rounding")
    native = next((name for feature, name in NATIVE_BF16.items() if feature in machine.cpu_features), None)
    if native is not None:
        return Choice("dtype", "bfloat16", f"native on this CPU ({native})")
    return Choice("dtype", "bfloat16", "half the memory of float32; upcast to it for each product")


def _choose_cuda_dtype(gpu: Gpu | None) -> Choice:
    capability = gpu.capability if gpu is not None else (0, 0)
    version = f"compute capability {capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return Choice("dtype", "bfloat16", f"{version}: bfloat16 is native from 8.0 on")
    if capability >= (5, 3):
        return Choice("dtype", "float16", f"{version}: bfloat16 is native from 8.0 on, float16 from 5.3 on")
    return Choice("dtype", "float32", f"{version}: float16 is native from 5.3 on")


def explain_slowness(dtype: str, device: str, machine: Machine, mapped_dtype: str | None = None) -> str | None:
    """Return why a dtype is slow on a device, or None if it is not."""
    gpu = machine.gpu(device)
    if gpu is not None and dtype == "bfloat16" and device.startswith("cuda") and gpu.capability < (8, 0):
        return f"bfloat16 is slow on {gpu.name}: it is native from compute capability 8.0 on; try --dtype float16"
    if device == "cpu" and dtype == "float16" and mapped_dtype is None:
        return "float16 is slow on a CPU: it is upcast for every token; try --dtype bfloat16"
    return None


def choose_attention(requested: str, device: str, dtype: str, machine: Machine) -> Choice:
    """Choose the attention backend, and refuse what cannot work before anything is loaded.

    transformers would download native code from the hub for flash attention without its package, and for any
    `org/name`.

    Raises:
        UsageError: `requested` is not a backend.
        DsvlError: flash attention cannot work on this machine.
    """
    if requested == "auto":
        return Choice("attention", "sdpa", "torch's own kernels, available on every device")
    check_value("attn_implementation", requested)
    if requested == "flash_attention_2":
        gpu = machine.gpu(device) if device.startswith("cuda") else None
        obstacle = None
        if gpu is None:
            obstacle = f"needs a CUDA GPU, but the device is {device}"
        elif gpu.capability < (8, 0):
            obstacle = f"needs compute capability 8.0, but {gpu.name} has {gpu.capability[0]}.{gpu.capability[1]}"
        elif dtype == "float32":
            obstacle = "computes in 16 bits, but the dtype is float32"
        elif not machine.flash_attn:
            obstacle = "needs the package flash-attn, which is not installed"
        if obstacle is not None:
            raise DsvlError(f"flash_attention_2 {obstacle}", "use --attn-implementation sdpa")
    return Choice("attention", requested, "requested")


def spread_attention(attention: str, model_type: str) -> str | dict[str, str]:
    """Return the backend in the form of `from_pretrained`; the SAM tower of 7b has only eager and sdpa."""
    if attention == "flash_attention_2" and model_type == "deepseek_vl_hybrid":
        return {"text_config": attention, "vision_config": "sdpa", "high_res_vision_config": "sdpa"}
    return attention


@dataclass(frozen=True, slots=True)
class Forecast:
    """The estimated memory of a model, in bytes.

    Attributes:
        name: the model as the user named it.
        plan: how it would be loaded.
        weights_bytes: its parameters in the plan's dtype; as stored for a quantized checkpoint.
        cache_tokens: 4,096, or the model's context length if that is shorter.
        cache_bytes: the KV cache of `cache_tokens`.
        working_bytes: the temporary memory of a prefill of `cache_tokens`.
        quantized: whether the checkpoint is stored quantized or quantized while loading.
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
        """The sum of the three."""
        return self.weights_bytes + self.cache_bytes + self.working_bytes


def forecast_memory(checkpoint: Checkpoint, plan: Plan, weights_bytes: int | None = None) -> Forecast:
    """Estimate the memory of a model from its configuration and the headers of its weights.

    `weights_bytes` is the size of the weights if they are quantized while loading.
    """
    text = text_settings(checkpoint.config)
    tokens = min(FORECAST_TOKENS, text["max_position_embeddings"])
    width = DTYPE_BYTES[plan.dtype]
    quantized = checkpoint.is_quantized or weights_bytes is not None
    if weights_bytes is None:
        weights_bytes = checkpoint.weight_bytes if checkpoint.is_quantized else checkpoint.parameters * width
    # The peak of one layer: residual, normalized input and output; gate, up and their product.
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
    """Size of the scores and the position bias of one global attention in 7b's SAM tower, 64 x 64 patches."""
    if sam is None:
        return 0
    patches = (_number(sam, "image_size", 1024) // _number(sam, "patch_size", 16)) ** 2
    return 2 * _number(sam, "num_attention_heads", 12) * patches**2 * width


def _number(config: dict[str, Any], key: str, default: int) -> int:
    """Return a positive number from a configuration, or the default if it is missing, null or invalid."""
    value = config.get(key)
    return value if isinstance(value, int) and value > 0 else default


def check_forecast(forecast: Forecast, *, force: bool) -> None:
    """Refuse a model that does not fit in memory, unless `force` is set.

    Raises:
        DoesNotFit: it needs more than is free; with the figures and the alternatives.
    """
    if force or forecast.total_bytes <= forecast.plan.available_bytes:
        return
    where = "the GPUs have" if forecast.plan.max_memory else f"{forecast.plan.device} has"
    raise DoesNotFit(
        f"{forecast.name} in {forecast.plan.dtype} needs {format_bytes(forecast.total_bytes)} "
        f"({format_bytes(forecast.weights_bytes)} for weights, {format_bytes(forecast.cache_bytes)} for the cache of "
        f"{forecast.cache_tokens:,} tokens, {format_bytes(forecast.working_bytes)} of working memory), "
        f"but {where} {format_bytes(forecast.plan.available_bytes)} free",
        f"{_suggest_smaller(forecast)}; --force tries anyway",
        forecast.total_bytes - forecast.plan.available_bytes,
    )


def _suggest_smaller(forecast: Forecast) -> str:
    ways = []
    if forecast.plan.dtype == "float32" and not forecast.quantized:
        ways.append("--dtype bfloat16 needs half")
    if not forecast.quantized:
        ways.append("--quantization 4bit needs little more than 4 bits per weight")
    return ", ".join([*ways, "--model tiny fits everywhere"])

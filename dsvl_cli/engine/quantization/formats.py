"""Formats of quantized weights, where each of them works, and what is refused before anything is loaded.

This module does not import torch. `selection.py` chooses the layers, `packing.py` quantizes a weight.

    bnb-nf4, bnb-fp4        4 bits in blocks of 64, block scales in 8 bits (double quantization), computes in bf16
    bnb-int8                8 bits, one scale per row; outlier activations are multiplied in 16 bits (LLM.int8())
    torchao-int8            8 bits, one scale per row; weights only
    torchao-int8-dynamic    the same, and activations are quantized to 8 bits on the fly
    torchao-int4            4 bits in groups of `group_size`
    int8, int4              for dsvl's own CPU kernels (kernels.py), only at load time: 8 bits with one scale per row,
                            4 bits in groups of 64
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.kernels.native.compiler import load_library
from dsvl_cli.engine.machine.plan import DTYPE_BYTES, choose_device, choose_devices, choose_dtype
from dsvl_cli.engine.options import DEFAULT_GROUP_SIZE, DEVICE_KINDS
from dsvl_cli.engine.progress import Choice, Listener
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from dsvl_cli.engine.checkpoint.find import Checkpoint
    from dsvl_cli.engine.machine.detect import Machine
    from dsvl_cli.engine.options import LoadOptions

OWN_PACKAGE = "dsvl_cli"


@dataclass(frozen=True, slots=True)
class Format:
    """One way to store the weights of linear layers.

    Attributes:
        name: as `--quantization` takes it.
        bits: per weight, without the scales.
        package: the one that computes with it.
        in_multiple, out_multiple: a layer can be quantized if its in-features and out-features are multiples of these.
            The values of bitsandbytes' 4-bit formats are those of its kernels for CPUs with AVX-512-BF16.
        layer_error: the largest relative error of an undamaged layer's dequantized weights, in the Frobenius norm.
        block_error: likewise for 64 neighbouring weights.
    """

    name: str
    bits: int
    package: str
    in_multiple: int
    out_multiple: int
    layer_error: float
    block_error: float

    @property
    def is_stored(self) -> bool:
        """Whether checkpoints can be stored in it; dsvl's own formats exist only in memory and in its cache."""
        return self.package != OWN_PACKAGE


FORMATS = {
    entry.name: entry
    for entry in (
        Format("bnb-nf4", 4, "bitsandbytes", 64, 32, layer_error=0.15, block_error=0.4),
        Format("bnb-fp4", 4, "bitsandbytes", 64, 32, layer_error=0.20, block_error=0.6),
        Format("bnb-int8", 8, "bitsandbytes", 1, 1, layer_error=0.05, block_error=0.5),
        Format("torchao-int8", 8, "torchao", 1, 1, layer_error=0.05, block_error=0.5),
        Format("torchao-int8-dynamic", 8, "torchao", 1, 1, layer_error=0.05, block_error=0.5),
        Format("torchao-int4", 4, "torchao", DEFAULT_GROUP_SIZE, 8, layer_error=0.20, block_error=0.6),
        Format("int8", 8, OWN_PACKAGE, 64, 1, layer_error=0.05, block_error=0.5),
        Format("int4", 4, OWN_PACKAGE, 64, 1, layer_error=0.15, block_error=0.4),
    )
}
STORED_FORMATS = {name: entry for name, entry in FORMATS.items() if entry.is_stored}
# For each width the formats to try, best first. bnb-int8 is before torchao-int8 because a decode step of 1.3b on a CPU
# took 275 to 320 ms, compared with 640 to 800 ms.
WIDTHS = {"4bit": ("int4", "bnb-nf4", "torchao-int4"), "8bit": ("int8", "bnb-int8", "torchao-int8")}


class Verdict(StrEnum):
    """What is known about a combination of format, device and dtype."""

    WORKS = "works"
    FAILS = "does not work"
    UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Cell:
    """Whether a format works on a kind of device in a dtype.

    Attributes:
        verdict: what is known.
        reason: how it is known, or why it fails.
        instead: if it fails, the flags of the nearest combination that can work.
    """

    verdict: Verdict
    reason: str
    instead: str | None = None


def _nearest_stored(name: str) -> str:
    """Return the best format of the same width that checkpoints can be stored in."""
    return next(other for other in WIDTHS[f"{FORMATS[name].bits}bit"] if FORMATS[other].is_stored)


def _where_measured(how: str) -> str:
    """Return on which CPUs a format was measured, and whether this one is of another kind."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return f"measured on x86-64 {how}"
    return "measured on x86-64 only, not on this kind of CPU"


def _judge(name: str, kind: str, dtype: str) -> Cell:
    if not FORMATS[name].is_stored:
        if kind != "cpu":
            return Cell(Verdict.FAILS, "its kernels are for CPUs", f"--quantization {_nearest_stored(name)}")
        return Cell(Verdict.WORKS, _where_measured("with AVX2"))
    if name == "torchao-int4":
        if kind not in ("cuda", "xpu"):
            return Cell(Verdict.FAILS, "torchao packs 4 bits only for CUDA and XPU devices", "--quantization bnb-nf4")
        if dtype == "float32" or (kind == "cuda" and dtype != "bfloat16"):
            return Cell(Verdict.FAILS, "torchao's kernel for 4 bits computes in bfloat16", "--dtype bfloat16")
        return Cell(Verdict.UNMEASURED, "torchao documents it")
    if kind == "cpu":
        return Cell(Verdict.WORKS, _where_measured("with AVX-512-BF16 and with AVX2 alone"))
    if FORMATS[name].package == "bitsandbytes":
        return Cell(Verdict.UNMEASURED, "bitsandbytes documents it")
    if kind == "mps":
        return Cell(Verdict.UNMEASURED, "torchao does not document it")
    return Cell(Verdict.UNMEASURED, "torchao documents it")


CELLS = {
    (name, kind, dtype): _judge(name, kind, dtype) for name, kind, dtype in product(FORMATS, DEVICE_KINDS, DTYPE_BYTES)
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to quantize, and to which format.

    Attributes:
        format: of the language model's linear layers.
        group_size: for torchao-int4, the number of neighbouring weights that share a scale.
        include_vision: quantize the vision towers and the aligner too.
        include_head: quantize the output head too.
    """

    format: Format
    group_size: int = DEFAULT_GROUP_SIZE
    include_vision: bool = False
    include_head: bool = False

    @property
    def in_multiple(self) -> int:
        """The number that a layer's in-features must be a multiple of."""
        return self.group_size if self.format.name == "torchao-int4" else self.format.in_multiple

    @property
    def bits_stored(self) -> float:
        """Approximate bits per weight, scales included.

        Double quantization adds 8 bits per 64 weights and 32 per 64 * 256, torchao-int4 32 per group; one scale per row
        is negligible.
        """
        if self.format.name == "torchao-int4":
            return 4 + 32 / self.group_size
        if self.format.name == "int4":
            return 4 + 16 / 64
        return self.format.bits + (8 / 64 + 32 / (64 * 256) if self.format.bits == 4 else 32 / 256)


def find_cell(name: str, device: str, dtype: str) -> Cell:
    """Return what is known about a format on a device, such as `cuda:0`, in a dtype."""
    return CELLS[name, device.partition(":")[0], dtype]


def group_dtypes(name: str, kind: str) -> dict[Cell, list[str]]:
    """Return what is known about a format on a kind of device, each with the dtypes that it applies to."""
    groups: dict[Cell, list[str]] = {}
    for dtype in DTYPE_BYTES:
        groups.setdefault(find_cell(name, kind, dtype), []).append(dtype)
    return groups


def resolve_recipe(
    options: LoadOptions, machine: Machine, listener: Listener, *, to_store: bool = False
) -> Recipe | None:
    """Resolve `--quantization` on a machine, and refuse what cannot work before anything is downloaded.

    For `4bit` and `8bit` on a CPU this loads dsvl's kernels, and compiles them at their first use.

    Args:
        options: what the user requested.
        machine: where the model would run.
        listener: receives the choice.
        to_store: a checkpoint is to be written, which excludes dsvl's own formats.

    Returns:
        the recipe, or None if no quantization is requested.

    Raises:
        DsvlError: the format does not work on the device in the dtype, or its package is missing.
    """
    requested = options.quantization
    if requested is None:
        return None
    spread = options.device_map is not None
    device = (choose_devices if spread else choose_device)(options.device, machine).value
    dtype = choose_dtype(options.dtype, device, machine).value
    if requested in WIDTHS:
        fitting = (
            name
            for name in WIDTHS[requested]
            if find_cell(name, device, dtype).verdict is not Verdict.FAILS
            # Without compiled kernels each step would dequantize all weights again.
            and (FORMATS[name].is_stored or (not to_store and load_library().library is not None))
        )
        name = next(fitting)
        reason = f"the best {FORMATS[name].bits} bits on this device; {find_cell(name, device, dtype).verdict}"
        listener.choice(Choice("quantization", name, reason))
    else:
        name = requested
    check_format(name, device, dtype)
    if to_store and not FORMATS[name].is_stored:
        raise DsvlError(
            f"{name} is only for loading; a checkpoint cannot be written in it",
            f"use --format {_nearest_stored(name)}",
        )
    if options.include_vision and not FORMATS[name].is_stored:
        hint = f"use {_nearest_stored(name)}, or omit --include-vision"
        raise DsvlError(f"{name} quantizes only the language model", hint)
    warn_about_quality(options, listener)
    return Recipe(FORMATS[name], options.group_size, options.include_vision, options.include_head)


def warn_about_quality(options: LoadOptions, listener: Listener) -> None:
    """Note what it costs to quantize more than the language model's layers."""
    if options.include_vision:
        listener.note("the vision towers are quantized too: answers about small details get worse")
    if options.include_head:
        listener.note("the output head is quantized too: rare words get worse")


def check_format(name: str, device: str, dtype: str) -> None:
    """Refuse a format that cannot work here.

    Raises:
        DsvlError: with the nearest combination that can, or with the missing package.
    """
    cell = find_cell(name, device, dtype)
    if cell.verdict is Verdict.FAILS:
        where = f"{device.partition(':')[0]} in {dtype}"
        raise DsvlError(f"{name} does not work on {where}: {cell.reason}", f"use {cell.instead}")
    package = FORMATS[name].package
    if find_spec(package) is None:
        command = "pip install 'dsvl[torchao]'" if package == "torchao" else f"pip install {package}"
        raise DsvlError(f"{name} needs the package {package}, which is not installed", command)


def find_stored_format(checkpoint: Checkpoint) -> str | None:
    """Return the format that a checkpoint is quantized in, or None if it is not quantized.

    Raises:
        DsvlError: dsvl does not support the format.
    """
    if not checkpoint.is_quantized:
        return None
    config = checkpoint.config["quantization_config"]
    name = _read_format(config) if isinstance(config, dict) else None
    if name is None:
        method = config.get("quant_method") if isinstance(config, dict) else config
        raise DsvlError(
            f"{checkpoint.name} is quantized with {method!r}, which dsvl does not support",
            "use the original model; dsvl quantize makes a smaller copy of it",
        )
    return name


def _read_format(config: dict[str, Any]) -> str | None:
    if config.get("quant_method") == "bitsandbytes":
        if config.get("load_in_8bit"):
            return "bnb-int8"
        return {"nf4": "bnb-nf4", "fp4": "bnb-fp4"}.get(config.get("bnb_4bit_quant_type", "fp4"))
    if config.get("quant_method") == "torchao":
        kind = config.get("quant_type")
        kind = kind.get("default") if isinstance(kind, dict) else None
        names = {
            "Int8WeightOnlyConfig": "torchao-int8",
            "Int8DynamicActivationInt8WeightConfig": "torchao-int8-dynamic",
            "Int4WeightOnlyConfig": "torchao-int4",
        }
        return names.get(kind.get("_type", "")) if isinstance(kind, dict) else None
    return None


def can_map(checkpoint: Checkpoint, recipe: Recipe | None) -> bool:
    """Whether our decoder might use the checkpoint's weights memory-mapped on a CPU; its tensors are not checked."""
    stored = find_stored_format(checkpoint)
    return (
        checkpoint.model_type == "deepseek_vl"
        and stored in (None, "bnb-int8")
        and (recipe is None or not recipe.format.is_stored or stored is not None)
    )


def check_stored_format(checkpoint: Checkpoint, requested: Recipe | None, device: str, dtype: str) -> None:
    """Refuse a quantized checkpoint that cannot run here, or for which another format is requested.

    Raises:
        DsvlError: it cannot work.
    """
    stored = find_stored_format(checkpoint)
    if stored is None:
        return
    if requested is not None and requested.format.name != stored:
        raise DsvlError(
            f"{checkpoint.name} is already quantized, as {stored}, and cannot be converted to {requested.format.name}",
            "omit --quantization (dsvl doctor shows where a default for it is set), or use the original model",
        )
    check_format(stored, device, dtype)

"""Formats of quantized weights, where each of them works, and what is refused before anything is loaded.

No torch here: which layers are quantized is chosen in `layers.py`, how a weight is stored in `packing.py`.

    bnb-nf4, bnb-fp4        4 bits in blocks of 64, the blocks' scales in 8 bits (double quantization), computes in bf16
    bnb-int8                8 bits, one scale a row; outlying activations are multiplied in 16 bits (LLM.int8())
    torchao-int8            8 bits, one scale a row; the weight alone
    torchao-int8-dynamic    the same, and activations are brought to 8 bits on the fly
    torchao-int4            4 bits in groups of `group_size`
    int8, int4              dsvl's own kernels for CPUs (kernels.py), only while loading: 8 bits with one scale a row,
                            4 bits in groups of 64
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.kernels.native.compiler import load_library
from dsvl_cli.engine.machine.plan import DTYPE_BYTES, choose_device, choose_devices, choose_dtype
from dsvl_cli.engine.options import DEFAULT_GROUP_SIZE
from dsvl_cli.engine.progress import Choice, Listener
from dsvl_cli.errors import DsvlError, UsageError

if TYPE_CHECKING:
    from dsvl_cli.engine.checkpoint.find import Checkpoint
    from dsvl_cli.engine.machine.detect import Machine
    from dsvl_cli.engine.options import LoadOptions

OWN_PACKAGE = "dsvl_cli"
DEVICE_KINDS = ("cpu", "cuda", "mps", "xpu")
GROUP_SIZES = (32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Format:
    """One way to store the weights of linear layers.

    Attributes:
        name: as `--quantization` takes it.
        bits: of one weight, without its share of the scales.
        package: that computes with it.
        in_multiple, out_multiple: a layer can be quantized where its in-features and out-features are multiples of
            these. The limits of the 4-bit formats of bitsandbytes are those of its kernels for CPUs with AVX-512-BF16.
        layer_error: a layer whose dequantized weights are further from the source than this, in the Frobenius norm
            and relative to it, is damaged.
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
        """Whether a checkpoint can be written in it; dsvl's own formats exist in memory and in its cache only."""
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
# Of each width the formats to try, best first. bnb-int8 before torchao-int8: on a CPU a decode step of 1.3b took 275
# to 320 ms against 640 to 800 ms.
WIDTHS = {"4bit": ("int4", "bnb-nf4", "torchao-int4"), "8bit": ("int8", "bnb-int8", "torchao-int8")}


class Verdict(StrEnum):
    """What is known about a cell."""

    WORKS = "works"
    FAILS = "does not work"
    UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Cell:
    """Whether one format works on one kind of device in one dtype.

    Attributes:
        verdict: what is known.
        reason: how it is known, or why it fails.
        instead: where it fails, the flags of the nearest that can work.
    """

    verdict: Verdict
    reason: str
    instead: str | None = None


def _nearest_stored(name: str) -> str:
    """Give the best format of the same width that a checkpoint can be written in."""
    return next(other for other in WIDTHS[f"{FORMATS[name].bits}bit"] if FORMATS[other].is_stored)


def _judge(name: str, kind: str, dtype: str) -> Cell:
    if not FORMATS[name].is_stored:
        if kind != "cpu":
            return Cell(Verdict.FAILS, "its kernels are for CPUs", f"--quantization {_nearest_stored(name)}")
        return Cell(Verdict.WORKS, "measured on x86-64 with AVX2")
    if name == "torchao-int4":
        if kind not in ("cuda", "xpu"):
            return Cell(Verdict.FAILS, "torchao packs 4 bits only for CUDA and XPU devices", "--quantization bnb-nf4")
        if dtype == "float32" or (kind == "cuda" and dtype != "bfloat16"):
            return Cell(Verdict.FAILS, "torchao's kernel for 4 bits computes in bfloat16", "--dtype bfloat16")
        return Cell(Verdict.UNMEASURED, "torchao documents it")
    if kind == "cpu":
        return Cell(Verdict.WORKS, "measured on x86-64, with AVX-512-BF16 and with AVX2 alone")
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
    """What to quantize, and into what.

    Attributes:
        format: of the linear layers of the language model.
        group_size: of torchao-int4: so many neighbouring weights share a scale.
        include_vision: the vision towers and the aligner too.
        include_head: the output head too.
    """

    format: Format
    group_size: int = DEFAULT_GROUP_SIZE
    include_vision: bool = False
    include_head: bool = False

    @property
    def in_multiple(self) -> int:
        """What a layer's in-features must be a multiple of."""
        return self.group_size if self.format.name == "torchao-int4" else self.format.in_multiple

    @property
    def bits_stored(self) -> float:
        """How many bits a weight takes with its share of the scales, about.

        Double quantization takes 8 bits for each 64 weights and 32 for each 64 * 256, torchao-int4 32 for each group;
        one scale a row is next to nothing.
        """
        if self.format.name == "torchao-int4":
            return 4 + 32 / self.group_size
        if self.format.name == "int4":
            return 4 + 16 / 64
        return self.format.bits + (8 / 64 + 32 / (64 * 256) if self.format.bits == 4 else 32 / 256)


def find_cell(name: str, device: str, dtype: str) -> Cell:
    """Look up what is known about a format on a device, such as `cuda:0`, in a dtype."""
    return CELLS[name, device.partition(":")[0], dtype]


def group_dtypes(name: str, kind: str) -> dict[Cell, list[str]]:
    """Tell what is known about a format on a kind of device, with the dtypes of which it is known."""
    groups: dict[Cell, list[str]] = {}
    for dtype in DTYPE_BYTES:
        groups.setdefault(find_cell(name, kind, dtype), []).append(dtype)
    return groups


def resolve_recipe(
    options: LoadOptions, machine: Machine, listener: Listener, *, to_store: bool = False
) -> Recipe | None:
    """Make sense of `--quantization` on a machine; what cannot work is refused here, before anything is fetched.

    Args:
        options: what is asked for.
        machine: what it would run on.
        listener: is told what was chosen.
        to_store: a checkpoint is to be written, so that only formats which have one count.

    Returns:
        None where no quantization is asked for.

    Raises:
        UsageError: the name or the group size does not exist.
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
    elif requested in FORMATS:
        name = requested
    else:
        raise UsageError(f"there is no format {requested!r}", f"a format is {', '.join([*FORMATS, *WIDTHS])}")
    if options.group_size not in GROUP_SIZES:
        sizes = ", ".join(map(str, GROUP_SIZES))
        raise UsageError(f"there is no group size {options.group_size}", f"a group size is one of {sizes}")
    check_format(name, device, dtype)
    if to_store and not FORMATS[name].is_stored:
        raise DsvlError(
            f"{name} is a format for loading, and no checkpoint is written in it",
            f"use --format {_nearest_stored(name)}",
        )
    if options.include_vision and not FORMATS[name].is_stored:
        hint = f"use {_nearest_stored(name)}, or drop --include-vision"
        raise DsvlError(f"{name} quantizes only the language model", hint)
    warn_widened(options, listener)
    return Recipe(FORMATS[name], options.group_size, options.include_vision, options.include_head)


def warn_widened(options: LoadOptions, listener: Listener) -> None:
    """Say what it costs to quantize more than the language model's layers."""
    if options.include_vision:
        listener.note("the vision towers are quantized too: answers about small details get worse")
    if options.include_head:
        listener.note("the output head is quantized too: rare words get worse")


def check_format(name: str, device: str, dtype: str) -> None:
    """Refuse what cannot work.

    Raises:
        DsvlError: with the nearest that can, or with the package that is missing.
    """
    cell = find_cell(name, device, dtype)
    if cell.verdict is Verdict.FAILS:
        where = f"{device.partition(':')[0]} in {dtype}"
        raise DsvlError(f"{name} does not work on {where}: {cell.reason}", f"use {cell.instead}")
    package = FORMATS[name].package
    if find_spec(package) is None:
        way = "pip install 'dsvl[torchao]'" if package == "torchao" else f"pip install {package}"
        raise DsvlError(f"{name} needs the package {package}, which is not installed", way)


def find_stored_format(checkpoint: Checkpoint) -> str | None:
    """Tell the format that a checkpoint is quantized in; None where it is not quantized.

    Raises:
        DsvlError: it is quantized in a way that dsvl does not run.
    """
    if not checkpoint.is_quantized:
        return None
    config = checkpoint.config["quantization_config"]
    name = _read_format(config) if isinstance(config, dict) else None
    if name is None:
        method = config.get("quant_method") if isinstance(config, dict) else config
        raise DsvlError(
            f"{checkpoint.name} is quantized with {method!r}, which dsvl does not run",
            "take the original model; dsvl quantize makes a smaller copy of it",
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


def check_stored_format(checkpoint: Checkpoint, requested: Recipe | None, device: str, dtype: str) -> None:
    """Refuse a quantized checkpoint that cannot run here, or that another format is asked of.

    Raises:
        DsvlError: it cannot work.
    """
    stored = find_stored_format(checkpoint)
    if stored is None:
        return
    if requested is not None and requested.format.name != stored:
        raise DsvlError(
            f"{checkpoint.name} is quantized already, as {stored}, and cannot become {requested.format.name}",
            "leave --quantization out (dsvl doctor shows where a default of it stands), or take the original model",
        )
    check_format(stored, device, dtype)

"""The weight formats known to the benchmarks, by the short names of their options. Does not import torch."""

from __future__ import annotations

from typing import Any, cast

from dsvl_cli.engine.options import Dtype, LoadOptions, Quantization
from dsvl_cli.engine.quantization.formats import FORMATS

UNQUANTIZED = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp32": 4.0}
_LLAMA_KINDS = {8: "q8_0", 4: "q4_0"}


def is_known(name: str) -> bool:
    """Whether dsvl has a format."""
    return name in UNQUANTIZED or name in FORMATS


def width(name: str) -> float:
    """Return the bytes per weight, without its share of the scales."""
    return _BYTES[name] if name in UNQUANTIZED else FORMATS[name].bits / 8


def llama_kind(name: str) -> str:
    """Return llama.cpp's format of the same width."""
    return "bf16" if name in UNQUANTIZED else _LLAMA_KINDS[FORMATS[name].bits]


def openvino_kind(name: str) -> str | None:
    """Return OpenVINO's format of the same width; None for unquantized weights, which are not compared."""
    return None if name in UNQUANTIZED else f"int{FORMATS[name].bits}"


def load_options(model: str, name: str, threads: int) -> LoadOptions:
    """Return the options that load a model in a format on the CPU."""
    options: dict[str, Any] = {"model": model, "device": "cpu", "offline": True, "threads": threads}
    if name in UNQUANTIZED:
        return LoadOptions(**options, dtype=cast(Dtype, UNQUANTIZED[name]))
    return LoadOptions(**options, quantization=cast(Quantization, name))


def flags(name: str) -> tuple[str, ...]:
    """Return the flags of `dsvl` that load a format."""
    return ("--dtype", UNQUANTIZED[name]) if name in UNQUANTIZED else ("--quantization", name)

"""The kind of a CPU by the instructions that its products use; results and goals are kept by kind."""

from __future__ import annotations

from collections.abc import Set

from dsvl_cli.engine.machine.instruction_sets import detect_instruction_sets

OTHER = "other"
# Linux' names of the features that a kind needs; the first that fits wins.
_KINDS = {
    "AMX": {"amx_tile"},
    "AVX-512 VNNI BF16": {"avx512_vnni", "avx512_bf16"},
    "AVX-512 VNNI": {"avx512_vnni"},
    "AVX-512": {"avx512f"},
    "AVX-VNNI": {"avx_vnni"},
    "AVX2": {"avx2"},
    "Arm I8MM": {"i8mm"},
    "Arm DotProd": {"asimddp"},
}


def name_kind(features: Set[str]) -> str:
    """Return the kind of a CPU with some features."""
    return next((kind for kind, needed in _KINDS.items() if needed <= features), OTHER)


def detect_kind() -> str:
    """Return the kind of this CPU."""
    return name_kind(detect_instruction_sets())

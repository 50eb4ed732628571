"""The instruction sets of this CPU, by Linux' names; asks the operating system only, so no torch is needed."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# Fields of a CPU that are the same at each start; others, such as its present frequency, are not.
_IDENTITY = ("model name", "flags", "Features", "CPU implementer", "CPU part")
_SYSCTL_SECONDS = 10.0
# Names that `sysctl` of macOS 12 and later prints, for what the kernels use.
_APPLE = {
    "AdvSIMD": ("asimd",),
    "FEAT_FP16": ("fphp", "asimdhp"),
    "FEAT_DotProd": ("asimddp",),
    "FEAT_I8MM": ("i8mm",),
    "FEAT_BF16": ("bf16",),
}


def detect_instruction_sets(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Return the instruction sets of this CPU; empty where the system does not report them."""
    if sys.platform == "darwin":
        return parse_sysctl(_run_sysctl())
    try:
        return parse_cpuinfo(cpuinfo.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return frozenset()


def describe_cpu(cpuinfo: Path = _CPUINFO) -> dict[str, str]:
    """Return what tells CPUs apart: machines with different ones may share a home directory."""
    found = {"machine": platform.machine(), "processor": platform.processor(), "platform": sys.platform}
    with contextlib.suppress(OSError):
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        fields = (line.partition(":") for line in first.splitlines())
        found |= {key.strip(): value.strip() for key, _, value in fields if key.strip() in _IDENTITY}
    return found


def parse_cpuinfo(text: str) -> frozenset[str]:
    """Read them from the text of Linux' `/proc/cpuinfo` (`flags` on x86, `Features` on Arm)."""
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(word for key, _, words in lines if key.strip() in ("flags", "Features") for word in words.split())


def parse_sysctl(text: str) -> frozenset[str]:
    """Read them from what macOS' `sysctl hw.optional.arm` prints: `hw.optional.arm.FEAT_I8MM: 1`."""
    lines = (line.rpartition(".")[2].partition(":") for line in text.splitlines())
    return frozenset(name for feature, _, value in lines if value.strip() == "1" for name in _APPLE.get(feature, ()))


def _run_sysctl() -> str:
    command = ["/usr/sbin/sysctl", "hw.optional.arm"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SYSCTL_SECONDS
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout

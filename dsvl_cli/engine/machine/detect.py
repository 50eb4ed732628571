"""What this machine has for computing: CPU features, GPUs, free memory."""

from __future__ import annotations

import platform
import subprocess
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsvl_cli.engine.machine.instruction_sets import parse_cpuinfo

# CPU features with native bfloat16 and 8-bit products, by their names in torch and Linux.
NATIVE_BF16 = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX-512-BF16", "bf16": "Arm's BF16"}
NATIVE_INT8 = {"amx_int8": "AMX-INT8", "avx512_vnni": "AVX-512-VNNI", "avx_vnni": "AVX-VNNI"}
_NVIDIA_SMI_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA or XPU device.

    Attributes:
        name: the product name.
        free_bytes: free memory.
        capability: CUDA's compute capability; (0, 0) for other devices.
    """

    name: str
    free_bytes: int
    capability: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Machine:
    """A description of a machine; device, dtype and attention are chosen from it alone.

    Attributes:
        cpu_features: those of `NATIVE_BF16` and `NATIVE_INT8` that the CPU has.
        memory_free: bytes that the process may still allocate, within a container's limit too.
        cuda, xpu: the devices in torch's order.
        mps_free: bytes that Apple's GPU may use; None without one.
        macos: the version of macOS; (0, 0) elsewhere.
        flash_attn: whether the package flash_attn is installed.
        torch_without_cuda: whether there is an NVIDIA driver, but torch is built without CUDA.
    """

    cpu_features: frozenset[str] = frozenset()
    memory_free: int = 0
    cuda: tuple[Gpu, ...] = ()
    xpu: tuple[Gpu, ...] = ()
    mps_free: int | None = None
    macos: tuple[int, int] = (0, 0)
    flash_attn: bool = False
    torch_without_cuda: bool = False

    @property
    def native_bf16(self) -> bool:
        """Whether the CPU has native bfloat16 products."""
        return not self.cpu_features.isdisjoint(NATIVE_BF16)

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of all devices, as `--device` takes them."""
        cuda = tuple(f"cuda:{index}" for index in range(len(self.cuda)))
        return ("cpu", *cuda, *(("mps",) if self.mps_free is not None else ()), *(("xpu",) if self.xpu else ()))

    def gpu(self, device: str) -> Gpu | None:
        """Return a CUDA or XPU device of `devices`; None for `cpu` and `mps`."""
        kind, _, index = device.partition(":")
        gpus = {"cuda": self.cuda, "xpu": self.xpu}.get(kind, ())
        return gpus[int(index or 0)] if gpus else None

    def free_bytes(self, device: str) -> int:
        """Return the free memory of a device of `devices`, in bytes."""
        gpu = self.gpu(device)
        if gpu is not None:
            return gpu.free_bytes
        return self.mps_free if device == "mps" and self.mps_free is not None else self.memory_free


def detect_machine() -> Machine:
    """Describe this machine.

    Compiles and loads nothing. A single GPU is opened, because only then is its free memory known; of several, those
    that nvidia-smi does not report.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about drivers: a GPU that torch cannot use does not count
        cuda = _detect_gpus(torch.cuda, query_free_memory)
        xpu = _detect_gpus(torch.xpu)
    memory_free = detect_free_memory()
    return Machine(
        cpu_features=_detect_cpu_features(),
        memory_free=memory_free,
        cuda=cuda,
        xpu=xpu,
        # The memory is shared with the CPU; Metal recommends a maximum.
        mps_free=min(memory_free, torch.mps.recommended_max_memory()) if torch.backends.mps.is_available() else None,
        macos=_detect_macos(),
        flash_attn=find_spec("flash_attn") is not None,
        torch_without_cuda=torch.version.cuda is None and Path("/proc/driver/nvidia/version").exists(),
    )


def _detect_gpus(backend: Any, query: Callable[[], Mapping[str, int]] | None = None) -> tuple[Gpu, ...]:
    """List the devices of `torch.cuda` or `torch.xpu`.

    `mem_get_info` creates a context, which takes some hundred MB of GPU memory. With several GPUs this would happen on
    those that are not chosen too, so free memory comes from `query`, which returns bytes by UUID. CUDA_VISIBLE_DEVICES
    reorders torch's devices, so the index cannot identify them. GPUs that `query` does not report are opened.
    """
    if not backend.is_available():
        return ()
    count = backend.device_count()
    # Tested with fakes only, never run on a machine with several GPUs.
    free_by_uuid = query() if query is not None and count > 1 else {}
    gpus = []
    for index in range(count):
        free = free_by_uuid.get(_normalize_uuid(backend.get_device_properties(index).uuid)) if free_by_uuid else None
        if free is None:
            free = _open_and_measure(backend, index)
        capability = backend.get_device_capability(index)
        version = capability if isinstance(capability, tuple) else (0, 0)  # XPU returns a dictionary of features
        gpus.append(Gpu(backend.get_device_name(index), free, version))
    return tuple(gpus)


def _open_and_measure(backend: Any, index: int) -> int:
    """Return the free bytes of a GPU; this creates a context on it."""
    try:
        return int(backend.mem_get_info(index)[0])
    except RuntimeError:
        return 0  # full, or in exclusive use by another process


def query_free_memory() -> dict[str, int]:
    """Ask nvidia-smi for the free bytes of all NVIDIA GPUs, by UUID; what it does not report is left out."""
    command = ["nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=_NVIDIA_SMI_SECONDS
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    rows = (line.partition(",") for line in done.stdout.splitlines())
    return {_normalize_uuid(uuid): int(free) * 2**20 for uuid, _, free in rows if free.strip().isdecimal()}


def _normalize_uuid(uuid: object) -> str:
    """nvidia-smi writes `GPU-` in front, torch does not."""
    return str(uuid).strip().lower().removeprefix("gpu-")


def _detect_cpu_features() -> frozenset[str]:
    import torch

    onednn: Any = torch.backends.mkldnn
    if not onednn.is_available():
        return frozenset()  # without oneDNN torch has no native products on any CPU
    ask = getattr(torch.cpu, "get_capabilities", None)  # missing in the oldest torch that dsvl supports
    if ask is not None:
        found = ask()
        return frozenset(name for name in (*NATIVE_BF16, *NATIVE_INT8) if found.get(name))
    cpuinfo = Path("/proc/cpuinfo")
    return read_cpu_features(cpuinfo.read_text() if cpuinfo.exists() else "")


def read_cpu_features(cpuinfo: str) -> frozenset[str]:
    """Find the features of `Machine` in the text of Linux' `/proc/cpuinfo`."""
    return parse_cpuinfo(cpuinfo) & {*NATIVE_BF16, *NATIVE_INT8}


def _detect_macos() -> tuple[int, int]:
    major, _, rest = platform.mac_ver()[0].partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor or 0)) if major else (0, 0)


def detect_free_memory(cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the bytes that the process may still allocate: available memory, or less under a container's limit.

    Args:
        cgroups: where Linux' control groups are mounted.
        membership: the file that names the groups of the process.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    groups = membership.read_text().splitlines() if membership.exists() else []
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            left = _free_in_groups(cgroups, group, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            left = _free_in_groups(cgroups / "memory", group, *names)
        else:
            continue
        available = min([available, *left])
    return max(0, available)


def _free_in_groups(root: Path, group: str, limit_name: str, usage_name: str, reclaimable_name: str) -> list[int]:
    """Return the bytes left under each limit from the group up to the root; reclaimable file pages count as free."""
    folder = root / group.lstrip("/")
    left = []
    for level in (folder, *folder.parents):
        if not level.is_relative_to(root):
            break
        try:
            limit = int((level / limit_name).read_text())
            usage = int((level / usage_name).read_text())
            entries = (entry.split() for entry in (level / "memory.stat").read_text().splitlines())
            reclaimable = {name: int(value) for name, value in entries}.get(reclaimable_name, 0)
        except (OSError, ValueError):
            continue  # no limit: the file is missing, or it says max
        left.append(limit - usage + reclaimable)
    return left

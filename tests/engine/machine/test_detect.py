from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from dsvl_cli.engine.machine import detect
from dsvl_cli.engine.machine.detect import detect_free_memory, detect_machine, query_free_memory, read_cpu_features

if TYPE_CHECKING:
    from pathlib import Path

GB = 10**9


def write_group(folder: Path, version: int, limit: str, usage: int, inactive: int) -> None:
    names = [("memory.max", "memory.current", "inactive_file")]
    names += [("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")]
    limit_name, usage_name, inactive_name = names[version == 1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / usage_name).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{inactive_name} {inactive}\n")


def test_this_machine_is_described() -> None:
    machine = detect_machine()
    assert machine.devices[0] == "cpu"
    assert 0 < machine.memory_free <= psutil.virtual_memory().total
    assert all(machine.free_bytes(device) >= 0 for device in machine.devices)


def test_looking_for_gpus_is_the_only_reason_to_import_torch() -> None:
    program = (
        "import sys, dsvl_cli.engine.machine.plan;"
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def test_looking_at_the_machine_loads_no_kernels() -> None:
    program = (
        "import sys; from dsvl_cli.engine.machine.detect import detect_machine; detect_machine();"
        "print([name for name in sys.modules if name.startswith('dsvl_cli.engine.kernels')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


class FakeCuda:
    """`torch.cuda` with some GPUs, which notes those that were opened."""

    def __init__(self, *uuids: str) -> None:
        self.uuids = uuids
        self.opened: list[int] = []

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return len(self.uuids)

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(uuid=self.uuids[index])

    def get_device_name(self, index: int) -> str:
        return f"GPU {self.uuids[index]}"

    def get_device_capability(self, index: int) -> tuple[int, int]:
        return (8, index)

    def mem_get_info(self, index: int) -> tuple[int, int]:
        self.opened.append(index)
        if self.uuids[index] == "full":
            raise RuntimeError("CUDA error: out of memory")
        return 7 * GB, 8 * GB


def put_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_several_gpus_are_not_opened_to_learn_their_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = "printf 'GPU-aa-1, 100\\nGPU-BB-2, 200\\nGPU-cc-3, 300\\n'"
    wanted = "--query-gpu=uuid,memory.free --format=csv,noheader,nounits"
    put_nvidia_smi(tmp_path, monkeypatch, f'[ "$*" = "{wanted}" ] && {answer}')
    cuda = FakeCuda("bb-2", "aa-1")  # as CUDA_VISIBLE_DEVICES=1,0 orders them
    gpus = detect._detect_gpus(cuda, query_free_memory)
    assert [(gpu.name, gpu.free_bytes, gpu.capability) for gpu in gpus] == [
        ("GPU bb-2", 200 * 2**20, (8, 0)),
        ("GPU aa-1", 100 * 2**20, (8, 1)),
    ]
    assert cuda.opened == []


@pytest.mark.parametrize(
    ("script", "opened"),
    [
        ("echo 'GPU-aa, 100'", [1]),
        ("printf 'GPU-aa, [N/A]\\nGPU-bb, 5\\n'", [0]),
        ("echo 'No devices were found'", [0, 1]),
        ("echo 'GPU-aa, 1'; exit 9", [0, 1]),
        ("exec sleep 60", [0, 1]),
    ],
)
def test_gpus_that_nvidia_smi_does_not_report_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, opened: list[int]
) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, script)
    monkeypatch.setattr(detect, "_NVIDIA_SMI_SECONDS", 0.5 if "sleep" in script else 10.0)
    cuda = FakeCuda("aa", "bb")
    gpus = detect._detect_gpus(cuda, query_free_memory)
    assert cuda.opened == opened
    assert all(gpus[index].free_bytes == 7 * GB for index in opened)


def test_without_nvidia_smi_all_gpus_are_opened_and_a_full_one_has_nothing_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    cuda = FakeCuda("aa", "full")
    assert [gpu.free_bytes for gpu in detect._detect_gpus(cuda, query_free_memory)] == [7 * GB, 0]
    assert cuda.opened == [0, 1]


def test_a_single_gpu_is_opened_and_nvidia_smi_is_not_run() -> None:
    def query() -> dict[str, int]:
        raise AssertionError("one GPU is opened in any case")

    cuda = FakeCuda("aa")
    assert [gpu.free_bytes for gpu in detect._detect_gpus(cuda, query)] == [7 * GB]
    assert cuda.opened == [0]


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse2\n", {"avx512_bf16"}),
        ("processor: 0\nflags : amx_bf16 avx512_bf16\nprocessor: 1\nflags : amx_bf16\n", {"amx_bf16", "avx512_bf16"}),
        ("flags : avx512_vnni avx_vnni_int8 avx512_4vnniw\n", {"avx512_vnni"}),
        ("Features : fp asimd svebf16 i8mm bf16\n", {"bf16"}),
        ("model name : bf16\nflags : avx2 f16c\n", set()),
        ("", set()),
    ],
)
def test_cpu_features_are_read_as_whole_words(text: str, features: set[str]) -> None:
    assert read_cpu_features(text) == features


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_limit_of_a_container_counts(tmp_path: Path, version: int) -> None:
    root = tmp_path / "cgroup"
    base = root / "memory" if version == 1 else root
    unlimited = "9223372036854771712" if version == 1 else "max"
    write_group(base / "pod" / "box", version, str(3 * 10**6), 2 * 10**6, 500_000)
    write_group(base / "pod", version, str(GB), GB // 2, 0)
    write_group(base, version, unlimited, 0, 0)
    membership = tmp_path / "membership"
    membership.write_text("4:cpu,memory:/pod/box\n3:pids:/\n" if version == 1 else "0::/pod/box\n")
    assert detect_free_memory(root, membership) == 1_500_000


def test_a_group_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    write_group(tmp_path, 2, "1000", 5000, 0)
    (tmp_path / "membership").write_text("0::/\n")
    assert detect_free_memory(tmp_path, tmp_path / "membership") == 0


def test_without_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    free = detect_free_memory(tmp_path, tmp_path / "none")
    assert abs(free - psutil.virtual_memory().available) < GB

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from dsvl_cli.engine.machine.detect import detect_free_memory, detect_machine, read_cpu_features

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

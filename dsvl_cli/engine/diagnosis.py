"""Checks of this machine and of what dsvl needs; no network connection is ever opened.

Every probe returns a `Finding`, and `examine` turns an exception into one: a broken component is reported like any
other and does not hide the rest.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsvl_cli.engine.machine.detect import Machine, detect_free_memory, detect_machine
from dsvl_cli.engine.machine.instruction_sets import parse_cpuinfo
from dsvl_cli.engine.storage.cache_folder import cache_folder, kept_prefixes_folder, packed_weights_folder
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DsvlError

# Used if installed.
OPTIONAL_PACKAGES = ("torchao", "flash-attn", "pillow-heif", "textual-image")
# CPU features that speed up 16- and 8-bit arithmetic, by their names in Linux: AVX-512-BF16, VNNI and AMX on x86,
# BF16 and I8MM on Arm.
CPU_FEATURES = (
    "avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm"
)  # fmt: skip
LEAST_FREE = 100_000_000  # bytes of disk space, below which nothing is cached
_SECRET = re.compile("token(?!s|izer)|key|secret|passw|credential|auth", re.IGNORECASE)
_HIDDEN = "…"


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact about the machine.

    Attributes:
        name: what it is about.
        value: for JSON.
        text: for people; None shows the value.
    """

    name: str
    value: Any
    text: str | None = None

    def __str__(self) -> str:
        return str(self.value) if self.text is None else self.text


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found: facts, and problems that keep dsvl from working."""

    facts: Sequence[Fact] = ()
    problems: Sequence[DsvlError] = ()


def examine(probe: Callable[[], Finding]) -> Finding:
    """Run a probe; an exception becomes a problem."""
    try:
        return probe()
    except DsvlError as error:
        return Finding(problems=[error])
    except Exception as error:  # the parts of a broken installation fail in their own ways
        lines = str(error).splitlines() or [""]
        return Finding(problems=[DsvlError(f"this check failed: {type(error).__name__}: {lines[0]}")])


def find_requirements() -> list[str]:
    """Return dsvl's dependencies as `name>=version`, from its installed metadata or from its source checkout."""
    try:
        return metadata.requires("dsvl") or []
    except metadata.PackageNotFoundError:
        import tomllib

        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        return list(tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]) if project.is_file() else []


def check_packages(requirements: Iterable[str]) -> Finding:
    """Compare installed package versions with the requirements, without importing any package."""
    facts, problems = [], []
    for requirement in requirements:
        match = re.match(r"[\w.-]+", requirement)
        if match is None or "extra ==" in requirement:
            continue
        name = match[0]
        bound = re.search(r">=\s*([\w.]+)", requirement.partition(";")[0])  # not always first: build tools sort them
        least = None if bound is None else bound[1]
        found = _version(name)
        facts.append(Fact(name, found, found or "not installed"))
        if found is None:
            problems.append(DsvlError(f"{name} is not installed", f"pip install '{requirement}'"))
        elif least is not None and _numbers(found) < _numbers(least):
            way = f"pip install -U '{requirement}'"
            problems.append(DsvlError(f"{name} is {found}, but dsvl needs at least {least}", way))
    optional = ((name, _version(name)) for name in OPTIONAL_PACKAGES)
    facts += [Fact(name, found, found or "not installed (optional)") for name, found in optional]
    return Finding(facts, problems)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 13, 0) for `2.13.0+cpu`."""
    begin = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, begin[0].split("."))) if begin else ()


def describe_computer(cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """Describe the platform, the CPU and the memory, without torch."""
    import psutil

    total, free = int(psutil.virtual_memory().total), detect_free_memory()
    facts = [
        Fact("platform", platform.platform()),
        Fact("python", platform.python_version(), f"{platform.python_version()} at {sys.executable}"),
        Fact("cpus", os.cpu_count()),
        Fact("memory_bytes", total, format_bytes(total)),
        Fact("memory_free_bytes", free, format_bytes(free)),
    ]
    if cpuinfo.exists():
        features = read_features(cpuinfo.read_text())
        facts.insert(3, Fact("cpu_features", features, ", ".join(features) or "none of the relevant ones"))
    return Finding(facts)


def read_features(cpuinfo: str) -> list[str]:
    """Return those of `CPU_FEATURES` that the text of Linux's `/proc/cpuinfo` lists."""
    words = parse_cpuinfo(cpuinfo)
    return [name for name in CPU_FEATURES if name in words]


def find_machine() -> Machine:
    """Detect the devices that torch can use.

    Raises:
        DsvlError: torch cannot be imported.
    """
    try:
        import torch  # noqa: F401
    except Exception as error:  # a missing library raises OSError, a broken package anything
        first = (str(error).splitlines() or [""])[0]
        message = f"torch cannot be imported: {type(error).__name__}: {first}"
        raise DsvlError(message, "reinstall it: pip install --force-reinstall torch") from error
    return detect_machine()


def describe_choices(machine: Machine) -> Finding:
    """List the devices, what `auto` chooses and why, and which attention backends work."""
    import torch

    from dsvl_cli.engine.kernels.choose import choose_kernels
    from dsvl_cli.engine.machine.plan import choose_attention, make_plan
    from dsvl_cli.engine.options import ATTENTION, LoadOptions
    from dsvl_cli.engine.progress import Silence

    devices = []
    for name in machine.devices:
        gpu, free = machine.gpu(name), machine.free_bytes(name)
        kind = f"{gpu.name}, " if gpu is not None else ""
        value = {"device": name, "name": gpu.name if gpu is not None else None, "free_bytes": free}
        devices.append((value, f"{name} ({kind}{format_bytes(free)} free)"))
    plan = make_plan(LoadOptions(), "deepseek_vl", Silence(), machine)
    _, kernels = choose_kernels(plan.device, getattr(torch, plan.dtype), machine)
    facts = [
        Fact("devices", [value for value, _ in devices], ", ".join(text for _, text in devices)),
        Fact("threads", torch.get_num_threads()),
    ]
    facts += [
        Fact(choice.what, {"value": choice.value, "reason": choice.reason}, f"{choice.value}: {choice.reason}")
        for choice in (*plan.choices, kernels)
    ]
    for backend in ATTENTION[1:]:
        try:
            choose_attention(backend, plan.device, plan.dtype, machine)
            facts.append(Fact(backend, {"works": True, "reason": None}, "works"))
        except DsvlError as error:
            facts.append(Fact(backend, {"works": False, "reason": error.message}, f"no: {error.message}"))
    return Finding(facts)


def describe_products(machine: Machine, *, renew: bool = False) -> Finding:
    """List how products with weights are computed on this CPU, and why.

    Args:
        machine: this machine.
        renew: measure all of them now, instead of listing what is stored.
    """
    from dsvl_cli.engine.kernels.choice_table import measure, recall
    from dsvl_cli.engine.kernels.choices import Budget
    from dsvl_cli.engine.kernels.choose import load_sound_library
    from dsvl_cli.engine.kernels.measured import RENEWAL_SECONDS, list_routes, product_table

    compiled = load_sound_library()
    questions = [question for question, _, _ in list_routes(machine, compiled)]
    table = product_table(compiled)
    answers = measure(questions, table, Budget(RENEWAL_SECONDS), renew=True) if renew else recall(questions, table)
    facts = []
    for name, answer in answers.items():
        value = {
            "chosen": answer.chosen,
            "measured": answer.complete,
            "reason": answer.reason,
            "seconds": dict(answer.seconds),
            "dropped": dict(answer.dropped),
        }
        facts.append(Fact(name, value, f"{answer.chosen}: {answer.reason}"))
    fault = f" (not written: {table.fault})" if table.fault else ""
    facts.append(Fact("kept in", {"path": str(table.path), "fault": table.fault}, f"{table.path}{fault}"))
    if not renew:
        facts.append(Fact("to renew it", "dsvl doctor --measure"))
    return Finding(facts)


def describe_quantization(devices: Iterable[str]) -> Finding:
    """List the support of each quantization format on these devices, by dtype."""
    from dsvl_cli.engine.quantization.formats import FORMATS, group_dtypes

    facts = []
    for kind in dict.fromkeys(device.partition(":")[0] for device in devices):
        for name, format_ in FORMATS.items():
            groups = group_dtypes(name, kind)
            value = {
                dtype: {"verdict": str(cell.verdict), "reason": cell.reason, "instead": cell.instead}
                for cell, dtypes in groups.items()
                for dtype in dtypes
            }
            texts = []
            for cell, dtypes in groups.items():
                way = f"; use {cell.instead}" if cell.instead else ""
                where = "" if len(groups) == 1 else f"{'/'.join(dtypes)} "
                texts.append(f"{where}{cell.verdict} ({cell.reason}{way})")
            installed = find_spec(format_.package) is not None
            if not installed:
                texts.append(f"{format_.package} is not installed")
            facts.append(Fact(f"{kind} {name}", {**value, "installed": installed}, "; ".join(texts)))
    return Finding(facts)


def check_embedded_model() -> Finding:
    """Check the model embedded in dsvl."""
    from dsvl_cli.engine.checkpoint.find import EMBEDDED, EMBEDDED_FOLDER, check_folder

    try:
        checkpoint = check_folder(EMBEDDED, EMBEDDED_FOLDER)
    except DsvlError as error:
        raise DsvlError(error.message, "reinstall dsvl: pip install --force-reinstall dsvl") from error
    size = format_bytes(checkpoint.weight_bytes)
    return Finding([Fact(EMBEDDED, {"bytes": checkpoint.weight_bytes}, f"complete, {size}")])


def describe_hub_cache() -> Finding:
    """List the models in the local hub cache."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from huggingface_hub import constants, errors, scan_cache_dir

        folder = Path(constants.HF_HUB_CACHE)
        facts = [Fact("path", str(folder))]
        disk = examine(lambda: check_disk(folder))
        try:
            repos = scan_cache_dir(folder).repos
        except errors.CacheNotFound:
            return Finding([*facts, *disk.facts, Fact("models", 0, "none yet")], disk.problems)
    models = sorted((repo for repo in repos if repo.repo_type == "model"), key=lambda repo: repo.repo_id)
    ours = [(repo, found) for repo in models if (found := _inspect_repo(repo)) is not None]
    for repo, whole in ours:
        state = "complete" if whole else "incomplete; the download resumes on first use"
        value = {"bytes": repo.size_on_disk, "whole": whole}
        facts.append(Fact(repo.repo_id, value, f"{format_bytes(repo.size_on_disk)}, {state}"))
    rest = sum(repo.size_on_disk for repo in repos) - sum(repo.size_on_disk for repo, _ in ours)
    facts.append(Fact("others_bytes", rest, f"{format_bytes(rest)} of other models and data"))
    return Finding([*facts, *disk.facts], disk.problems)


def describe_cache_folder() -> Finding:
    """Report the location and size of dsvl's cache folder."""
    folder = cache_folder()
    facts = [Fact("path", str(folder))]
    kinds = {"packed_weights": packed_weights_folder(), "kept_prompts": kept_prefixes_folder()}
    for name, kept in kinds.items():
        files = kept.list_files()
        size = sum(size for _, size in files)
        text = f"{format_bytes(size)} in {len(files)} files, at most {format_bytes(kept.largest_bytes)}: {kept.path}"
        facts.append(Fact(name, {"path": str(kept.path), "bytes": size, "files": len(files)}, text))
    facts.append(Fact("to empty it", "delete these folders, or files in them, at any time"))
    disk = examine(lambda: check_disk(folder))
    return Finding([*facts, *disk.facts], disk.problems)


def _inspect_repo(repo: Any) -> bool | None:
    """Return whether a cached repository has a complete revision, or None if dsvl does not support the model."""
    from dsvl_cli.engine.checkpoint.find import MODEL_TYPES, find_missing

    found = None
    for revision in repo.revisions:
        try:
            config = json.loads((revision.snapshot_path / "config.json").read_bytes())
            if config.get("model_type") in MODEL_TYPES:
                found = bool(found) or not find_missing(revision.snapshot_path)
        except (OSError, ValueError, AttributeError):
            continue
        except DsvlError:  # the index of the weights is damaged
            found = bool(found)
    return found


def check_disk(folder: Path) -> Finding:
    """Report the free space on the disk of a folder that need not exist yet."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    facts = [Fact("disk_free_bytes", free, format_bytes(free))]
    if free >= LEAST_FREE:
        return Finding(facts)
    return Finding(facts, [DsvlError(f"{folder} has only {format_bytes(free)} free", "free some space on its disk")])


def is_secret(variable: str) -> bool:
    """Whether the name of an environment variable suggests that its value is secret."""
    return _SECRET.search(variable) is not None


def hide_secrets(value: Any, variables: Mapping[str, str]) -> Any:
    """Mask secrets in all strings of a JSON value.

    Secrets are the values of variables for which `is_secret` holds, hub tokens, and user names and passwords in URLs.
    """
    if isinstance(value, dict):
        return {name: hide_secrets(entry, variables) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide_secrets(entry, variables) for entry in value]
    if not isinstance(value, str):
        return value
    for name, secret in variables.items():
        if is_secret(name) and len(secret) >= 6:  # a shorter one would also match parts of ordinary words
            value = value.replace(secret, _HIDDEN)
    value = re.sub(r"\bhf_\w{8,}", _HIDDEN, value)
    return re.sub(r"(?<=://)[^/@\s]*@", f"{_HIDDEN}@", value)

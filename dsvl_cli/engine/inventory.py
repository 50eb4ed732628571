"""The models that can be named here: the aliases, what the hub cache and folders have, and whether each would fit.

Nothing is downloaded, and only the headers of weights are read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.checkpoint.find import (
    ALIASES,
    EMBEDDED,
    MODEL_TYPES,
    Checkpoint,
    check_folder,
    find_missing,
    resolve_model,
)
from dsvl_cli.engine.checkpoint.layouts import read_object, text_settings
from dsvl_cli.engine.machine.plan import DTYPE_BYTES, forecast_memory, make_plan
from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.engine.progress import Silence
from dsvl_cli.engine.quantization.formats import can_map, find_stored_format
from dsvl_cli.engine.storage.cache_folder import packed_weights_folder
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from dsvl_cli.engine.machine.detect import Machine

_MOST_ENTRIES = 1000  # of a folder that are looked at
_FOUR_BITS = 4.5 / 8  # bytes per weight, with its scale
# The published models, for an estimate before they are downloaded: their parameters and the sizes that memory depends
# on, in the names of `config.json`.
_PUBLISHED: Mapping[str, tuple[int, dict[str, Any]]] = {
    "1.3b": (
        1_960_000_000,
        {
            "model_type": "deepseek_vl",
            "text_config": {
                "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
                "max_position_embeddings": 16384,
            },
        },
    ),
    "7b": (
        7_340_000_000,
        {
            "model_type": "deepseek_vl_hybrid",
            "text_config": {
                "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30, "num_attention_heads": 32,
                "max_position_embeddings": 16384,
            },
            "high_res_vision_config": {},
        },
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model would fit in memory.

    Attributes:
        needed_bytes: what it would need in the dtype that is chosen for it.
        free_bytes: what is free on the device.
        device, dtype: those that are chosen for it.
        fits_in_4bit: whether it would fit with `--quantization 4bit`; also True if that is not needed.
    """

    needed_bytes: int
    free_bytes: int
    device: str
    dtype: str
    fits_in_4bit: bool

    @property
    def fits(self) -> bool:
        """Whether it fits as it is."""
        return self.needed_bytes <= self.free_bytes


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that can be named.

    Attributes:
        name: for `--model`.
        kind: `built in`, `alias`, `hub cache` or `folder`.
        target: what an alias stands for, otherwise the hub id or the folder.
        path: the folder of its files; None if it is not on this machine.
        size_bytes: on the disk; what would be downloaded if it is not on this machine, and None if that is unknown.
        format: of its weights, such as `bfloat16` or `bnb-nf4`; empty if unknown.
        problem: why it cannot be loaded; None if it can, or is not on this machine.
        fit: whether it would fit; None if that is unknown.
    """

    name: str
    kind: str
    target: str
    path: Path | None = None
    size_bytes: int | None = None
    format: str = ""
    problem: str | None = None
    fit: Fit | None = None


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """A file of packed weights in dsvl's cache.

    Attributes:
        name: the beginning of the model's fingerprint and the format, such as `3fa9c1d2-int4`.
        path: the file.
        size_bytes: its size.
    """

    name: str
    path: Path
    size_bytes: int


def list_models(
    aliases: Mapping[str, str] | None = None, machine: Machine | None = None, folder: Path | None = None
) -> list[ModelEntry]:
    """List the user's aliases, the built-in ones, further models of the hub cache, and the models in a folder.

    Args:
        aliases: the user's own, with what they stand for.
        machine: what the models would run on; None leaves `fit` out, and needs no torch.
        folder: whose subfolders are looked at; by default the current one.
    """
    repos = find_cached_repos()
    named = {**(aliases or {}), **{name: name for name in ALIASES if name not in (aliases or {})}}
    entries = [_describe_name(name, target, repos, machine) for name, target in named.items()]
    known = {entry.target for entry in entries}
    entries += [_describe_repo(repo, repo, "hub cache", repos, machine) for repo in sorted(repos) if repo not in known]
    return [*entries, *_list_folders(folder or Path(), machine)]


def list_packed() -> list[PackedWeights]:
    """List the packed weights in dsvl's cache, least recently used first."""
    found = []
    for path, size in packed_weights_folder().list_files():
        fingerprint, _, rest = path.stem.partition("-")
        label = rest.rsplit("-", 2)[0]  # what follows is the number of layers and the version
        found.append(PackedWeights(f"{fingerprint[:8]}-{label}" if label else path.stem, path, size))
    return found


def find_cached_repos() -> dict[str, Any]:
    """Return the repositories of the hub cache that have models for dsvl, by their ids."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from huggingface_hub import constants, errors, scan_cache_dir

        try:
            repos = scan_cache_dir(Path(constants.HF_HUB_CACHE)).repos
        except errors.CacheNotFound:
            return {}
    models = (repo for repo in repos if repo.repo_type == "model")
    return {repo.repo_id: repo for repo in models if find_revision(repo) is not None}


def find_revision(repo: Any) -> Path | None:
    """Return the folder of a cached repository's latest revision that dsvl supports, a complete one if there is any."""
    found = []
    for revision in repo.revisions:
        folder = Path(revision.snapshot_path)
        try:
            if read_object(folder / "config.json").get("model_type") in MODEL_TYPES:
                found.append((not find_missing(folder), "main" in revision.refs, revision.last_modified, folder))
        except (DsvlError, OSError):
            if (folder / "config.json").is_file():
                found.append((False, False, 0.0, folder))
    return max(found)[-1] if found else None


def _describe_name(name: str, target: str, repos: Mapping[str, Any], machine: Machine | None) -> ModelEntry:
    kind = "built in" if name == target == EMBEDDED else "alias"
    try:
        where = resolve_model(target)
    except DsvlError as error:
        return ModelEntry(name, kind, target, problem=error.message)
    if isinstance(where, Path):
        shown = ALIASES[EMBEDDED] if target.lower() == EMBEDDED else str(where)
        return _inspect(ModelEntry(name, kind, shown, where), machine)
    return _describe_repo(name, where, kind, repos, machine)


def _describe_repo(name: str, repo: str, kind: str, repos: Mapping[str, Any], machine: Machine | None) -> ModelEntry:
    if repo in repos:
        entry = _inspect(ModelEntry(name, kind, repo, find_revision(repos[repo])), machine)
        return replace(entry, size_bytes=repos[repo].size_on_disk)
    published = _find_published(repo)
    if published is None:
        return ModelEntry(name, kind, repo)
    return _with_fit(ModelEntry(name, kind, repo, size_bytes=published.weight_bytes), published, machine)


def _list_folders(folder: Path, machine: Machine | None) -> Iterator[ModelEntry]:
    """Yield the models in the subfolders of a folder."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry, _ in zip(entries, range(_MOST_ENTRIES), strict=False))
    except OSError:
        return
    for name in names:
        path = folder / name
        try:
            is_model = read_object(path / "config.json").get("model_type") in MODEL_TYPES
        except (DsvlError, OSError):
            continue
        if is_model:
            yield _inspect(ModelEntry(f"./{name}", "folder", str(path.resolve()), path.resolve()), machine)


def _inspect(entry: ModelEntry, machine: Machine | None) -> ModelEntry:
    """Fill in what the files of a model tell, and whether it would fit."""
    assert entry.path is not None
    try:
        size = sum(file.stat().st_size for file in entry.path.iterdir() if file.is_file())
        checkpoint = check_folder(entry.name, entry.path, identify=False)
    except DsvlError as error:
        is_partial = entry.kind != "folder" and bool(_missing(entry.path))
        problem = "incomplete; the download resumes on first use" if is_partial else error.message
        return replace(entry, problem=problem)
    except OSError as error:
        return replace(entry, problem=f"cannot be read: {error.strerror}")
    return _with_fit(replace(entry, size_bytes=size, format=_format_of(checkpoint)), checkpoint, machine)


def _missing(folder: Path) -> list[str]:
    try:
        return find_missing(folder)
    except DsvlError:
        return []


def _format_of(checkpoint: Checkpoint) -> str:
    return find_stored_format(checkpoint) or checkpoint.stored_dtype or ""


def _find_published(repo: str) -> Checkpoint | None:
    """Return the description of a published model that is not on this machine."""
    alias = next((name for name, target in ALIASES.items() if target == repo), "")
    found = _PUBLISHED.get(alias.removesuffix("-base"))
    if found is None:
        return None
    parameters, config = found
    return Checkpoint(
        alias, Path(), config["model_type"], True, 2 * parameters, parameters, config, "", stored_dtype="float16"
    )


def _with_fit(entry: ModelEntry, checkpoint: Checkpoint, machine: Machine | None) -> ModelEntry:
    """Fill in whether a model would fit, if the machine is known."""
    try:
        return entry if machine is None else replace(entry, fit=estimate_fit(checkpoint, machine))
    except DsvlError as error:
        return replace(entry, problem=error.message)


def estimate_fit(checkpoint: Checkpoint, machine: Machine) -> Fit:
    """Estimate whether a model fits on a machine, loaded with the default options."""
    stored_dtype = checkpoint.stored_dtype if can_map(checkpoint, None) else None
    plan = make_plan(LoadOptions(), checkpoint.model_type, Silence(), machine, stored_dtype)
    forecast = forecast_memory(checkpoint, plan)
    fits_in_4bit = forecast.total_bytes <= plan.available_bytes
    if not fits_in_4bit and not checkpoint.is_quantized:
        linear = _count_linear(checkpoint.config)
        weights = (checkpoint.parameters - linear) * DTYPE_BYTES[plan.dtype] + linear * _FOUR_BITS
        fits_in_4bit = forecast_memory(checkpoint, plan, int(weights)).total_bytes <= plan.available_bytes
    return Fit(forecast.total_bytes, plan.available_bytes, plan.device, plan.dtype, fits_in_4bit)


def _count_linear(config: Mapping[str, Any]) -> int:
    """Return the number of weights of the language model's linear layers, which are quantized."""
    text = text_settings(config)
    hidden, head_dim = text["hidden_size"], text["head_dim"]
    attention = 2 * hidden * head_dim * (text["num_attention_heads"] + text["num_key_value_heads"])
    return int(text["num_hidden_layers"] * (attention + 3 * hidden * text["intermediate_size"]))

"""Which files a model is loaded from: an alias, a hub id, a folder or the embedded model -> a checked folder.

What is refused is refused here, before torch is imported: other model types, weights that are not safetensors,
missing and truncated files.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.checkpoint import hub
from dsvl_cli.engine.checkpoint.layouts import (
    EMBEDDINGS,
    HEAD,
    SETTINGS_FILES,
    canonical_name,
    find_chat_template,
    read_object,
)
from dsvl_cli.engine.checkpoint.originals import find_original, refuse_folder, refuse_original, suggest_alias
from dsvl_cli.errors import DsvlError, UsageError

if TYPE_CHECKING:
    from dsvl_cli.engine.options import LoadOptions
    from dsvl_cli.engine.progress import Listener

EMBEDDED = "tiny"
EMBEDDED_FOLDER = Path(__file__).resolve().parents[2] / "tiny"
ALIASES = {
    EMBEDDED: "the model that comes with dsvl",
    "1.3b": "deepseek-community/deepseek-vl-1.3b-chat",
    "7b": "deepseek-community/deepseek-vl-7b-chat",
    "1.3b-base": "deepseek-community/deepseek-vl-1.3b-base",
    "7b-base": "deepseek-community/deepseek-vl-7b-base",
}
MODEL_TYPES = ("deepseek_vl", "deepseek_vl_hybrid")
_CONVERTED = (
    "the converted models are deepseek-community/deepseek-vl-1.3b-chat and its siblings: --model 1.3b, --model 7b"
)
_INDEX = "model.safetensors.index.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_SAMPLES, _SAMPLE_BYTES = 64, 4096


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of one model, found and checked.

    Attributes:
        name: what the user called it.
        path: the folder with all files.
        model_type: `deepseek_vl` (1.3b) or `deepseek_vl_hybrid` (7b).
        has_chat: False for a base model, which goes on with a text instead of answering.
        weight_bytes: the size of the weights as they are stored.
        parameters: how many numbers the weights hold; in a quantized checkpoint, how many are stored.
        config: `config.json`.
        fingerprint: hexadecimal; equal for equal weights, configuration and tokenizer.
        commit: the commit of the hub's repository; None for a folder that is not from there.
        stored_dtype: `float32`, `bfloat16` or `float16`: of most of the weights; None where most have another.
        has_own_head: whether the output head is stored beside the embeddings, whatever the configuration says of it.
    """

    name: str
    path: Path
    model_type: str
    has_chat: bool
    weight_bytes: int
    parameters: int
    config: dict[str, Any] = field(repr=False)
    fingerprint: str
    commit: str | None = None
    stored_dtype: str | None = None
    has_own_head: bool = False

    @property
    def is_quantized(self) -> bool:
        """Whether the weights are stored in a narrower format than they are computed in."""
        return "quantization_config" in self.config


def find_checkpoint(options: LoadOptions, listener: Listener) -> Checkpoint:
    """Find the model's files, downloading what is missing, and check them.

    Raises:
        UsageError: the model's name means nothing, or `revision` is given for a folder.
        DsvlError: the files are missing, damaged, of another kind of model, or cannot be fetched.
    """
    where = resolve_model(options.model)
    if isinstance(where, Path):
        if options.revision is not None:
            raise UsageError(f"--revision goes with a model of the hub, and {options.model} is none")
        if where == EMBEDDED_FOLDER:
            listener.note("tiny is a demonstration: it knows drawn shapes and numbers, not photographs")
        return check_folder(options.model, where)
    if options.revision is None and (original := find_original(where)):
        raise refuse_original(original)
    return check_folder(options.model, _find_on_hub(where, options, listener), where)


def resolve_model(model: str) -> Path | str:
    """Tell what a model's name means: a folder (a `Path`) or a repository of the hub (`org/name`).

    An alias wins over a folder of that name, and a folder that exists over a hub id; `./name` is always a folder.

    Raises:
        UsageError: it is neither.
        DsvlError: it is a path, and there is no folder.
    """
    alias = model.lower()
    if alias == EMBEDDED:
        return EMBEDDED_FOLDER
    if alias in ALIASES:
        return ALIASES[alias]
    # os.path, since pathlib raises on names that no file can have
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        return Path(path).resolve()
    if os.path.exists(path):
        raise DsvlError(f"{model} is a file, and a model is a folder", f"try --model {Path(path).parent}")
    if model.startswith((".", "~", os.sep)) or model.endswith("/") or model.count("/") > 1 or "\\" in model:
        raise DsvlError(f"there is no folder {model}", "check the path; a model of the hub is written org/name")
    if _HUB_ID.fullmatch(model):
        return model
    near = suggest_alias(alias) or next(iter(difflib.get_close_matches(alias, ALIASES, n=1, cutoff=0.4)), None)
    guess = f"did you mean {near}? " if near else ""
    raise UsageError(
        f"there is no model {model!r}", f"{guess}a model is {', '.join(ALIASES)}, a hub id org/name, or a folder"
    )


def _find_on_hub(repo: str, options: LoadOptions, listener: Listener) -> Path:
    """Return a repository's folder in the cache; what is cached whole is used as it is, without asking the hub."""
    cached = hub.find_snapshot(repo, options.revision)
    if cached is not None and not find_missing(cached):
        return cached
    if options.offline or hub.is_offline():
        part = "only partly" if cached is not None else "not"
        reason = "--offline" if options.offline else "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE"
        raise DsvlError(f"{repo} is {part} on this machine, and {reason} forbids to download it", hub.WAYS_ON)

    def accept(folder: Path) -> None:
        _check_type(repo, _read_config(repo, folder), [repo])

    return hub.download(repo, options.revision, listener, accept)


def check_folder(name: str, folder: Path, repo: str | None = None) -> Checkpoint:
    """Check that a folder holds a whole model that dsvl can run, reading no more than the headers of the weights.

    Args:
        name: what the user called it.
        folder: holds `config.json` and the rest.
        repo: the hub's name of it, where it has one.

    Raises:
        DsvlError: something is missing, damaged or of another kind.
    """
    if not (folder / "config.json").is_file():
        raise DsvlError(f"{name} holds no model: {folder} has no config.json", "a model is a folder with config.json")
    config = _read_config(name, folder)
    names = (repo or "", folder.name, _repository_of(folder))
    model_type = _check_type(name, config, names)
    missing = find_missing(folder)
    if any(file.endswith(".safetensors") for file in missing) and any(folder.glob("*.bin")):
        raise DsvlError(
            f"{name} has its weights as .bin, and dsvl loads only safetensors",
            "pickled weights can run code; look for a converted copy of the model",
        )
    if missing:
        raise DsvlError(f"{name} is not complete: {folder} has no {_join(missing)}", "copy or download the model again")
    weights = list_weights(folder)
    tensors = [entry for path in weights for entry in _read_entries(path).items()]
    entries = [entry for _, entry in tensors]
    stored = {canonical_name(name) for name, _ in tensors}
    return Checkpoint(
        name=name,
        path=folder,
        model_type=model_type,
        has_chat=find_chat_template(folder) is not None and not any(map(is_base_name, names)),
        weight_bytes=sum(path.stat().st_size for path in weights),
        parameters=sum(math.prod(entry.shape) for entry in entries),
        config=config,
        fingerprint=_take_fingerprint(folder, weights),
        commit=folder.name if folder.parent.name == "snapshots" else None,
        stored_dtype=_find_dtype(entries),
        has_own_head={EMBEDDINGS, HEAD} <= stored,
    )


def _find_dtype(entries: Iterable[_Entry]) -> str | None:
    """Name the dtype of most of the numbers, as torch does."""
    numbers: Counter[str] = Counter()
    for entry in entries:
        numbers[entry.dtype] += math.prod(entry.shape)
    most = max(numbers, key=numbers.__getitem__, default="")
    return {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(most)


def find_missing(folder: Path) -> list[str]:
    """List the names of the files that a model needs and the folder lacks; of alternatives, the usual one."""
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        missing.append("processor_config.json")
    return missing + [path.name for path in list_weights(folder) if not path.is_file()]


def list_weights(folder: Path) -> list[Path]:
    """List the safetensors files that the weights consist of, whether they are there or not.

    Raises:
        DsvlError: the index that names them is damaged.
    """
    index = folder / _INDEX
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return [folder / "model.safetensors"]
    shards = read_object(index).get("weight_map")
    # The names come from a stranger: they must stay in the folder.
    if not isinstance(shards, dict) or not all(_is_shard(name) for name in shards.values()):
        raise DsvlError(f"{index} names no weights", "the index is damaged: download the model again")
    return [folder / name for name in sorted(set(shards.values()))]


def _is_shard(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor in the header of a safetensors file; the dtype has the format's own name, such as `BF16`."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a safetensors file's tensors, by their names.

    Raises:
        DsvlError: the file is shorter than its header says, or is no such file.
    """
    return {name: entry.shape for name, entry in _read_entries(path).items()}


def _read_entries(path: Path) -> dict[str, _Entry]:
    """Read the header of a safetensors file.

    The format: eight bytes with the length of the header (little endian), the header in JSON, then the tensors'
    bytes, to which `data_offsets` of the header refer (https://github.com/huggingface/safetensors#format).
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError("the header is too long")
            text = file.read(length)
        size = path.stat().st_size
        if size < 8 + length:
            raise _truncated(path, size, 8 + length)
        tensors = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        entries = {
            name: _Entry(str(entry["dtype"]), tuple(int(side) for side in entry["shape"]))
            for name, entry in tensors.items()
        }
    except OSError as error:
        raise DsvlError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DsvlError(f"{path} is no safetensors file", "it is damaged: download it again") from error
    if size < end:
        raise _truncated(path, size, end)
    return entries


def _truncated(path: Path, size: int, expected: int) -> DsvlError:
    # In a hub cache the file is a link, and only where that leads to can the damage be deleted.
    return DsvlError(
        f"{path} is truncated: it has {size:,} of {expected:,} bytes",
        f"delete {path.resolve()}, then copy or download it again",
    )


def is_base_name(name: str) -> bool:
    """Whether a model's name says that it is a base model: `deepseek-vl-7b-base`, `7b-base-nf4`.

    The files do not tell: one converter wrote all of DeepSeek's checkpoints, so that a base model may well carry a
    chat template.
    """
    parts = re.split(r"[-_./\\]+", name.lower())
    return "base" in parts and "chat" not in parts


def _repository_of(folder: Path) -> str:
    """Name the repository whose snapshot in a hub cache the folder is, `org--name`; "" where it is none."""
    is_snapshot = folder.parent.name == "snapshots"
    return folder.parent.parent.name.removeprefix("models--") if is_snapshot else ""


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    config = read_object(folder / "config.json")
    if not all(isinstance(config.get(part, {}), dict) for part in ("text_config", "vision_config")):
        raise DsvlError(f"the config.json of {name} is damaged", "copy or download the model again")
    return config


def _check_type(name: str, config: dict[str, Any], names: Iterable[str]) -> str:
    model_type = config.get("model_type")
    if model_type in MODEL_TYPES:
        return str(model_type)
    if (refusal := refuse_folder(name, config, names)) is not None:
        raise refusal
    raise DsvlError(f"{name} is a model of type {model_type!r}, and dsvl runs {' and '.join(MODEL_TYPES)}", _CONVERTED)


def _take_fingerprint(folder: Path, weights: list[Path]) -> str:
    """SHA-256 over the small files whole and over each file of weights at its start and at 64 places.

    Reading all of 15 GB would cost more than loading them; a model trained further changes its weights everywhere.
    """
    digest = hashlib.sha256()
    for name in SETTINGS_FILES:
        path = folder / name
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    for path in weights:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            digest.update(size.to_bytes(8, "little") + file.read(length))
            for place in range(_SAMPLES):
                file.seek(8 + length + (size - 8 - length) * place // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _join(names: list[str]) -> str:
    """Write the first names of a list, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"

"""Finds and checks the files of a model: an alias, a hub id, a folder or the embedded model -> a checked folder.

Unsupported models are rejected here, before torch is imported: other model types, weights that are not safetensors,
missing or truncated files.
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
from dsvl_cli.engine.checkpoint.consistency import check_config, check_tensors
from dsvl_cli.engine.checkpoint.layouts import (
    EMBEDDINGS,
    HEAD,
    SETTINGS_FILES,
    canonical_name,
    find_chat_template,
    read_object,
)
from dsvl_cli.engine.checkpoint.originals import find_original, refuse_folder, refuse_original, suggest_alias
from dsvl_cli.engine.storage.contents import hash_file
from dsvl_cli.errors import DsvlError, SettingError, UsageError

if TYPE_CHECKING:
    from dsvl_cli.engine.options import LoadOptions
    from dsvl_cli.engine.progress import Listener

EMBEDDED = "tiny"
EMBEDDED_FOLDER = Path(__file__).resolve().parents[2] / "tiny"
ALIASES = {
    EMBEDDED: "the model embedded in dsvl",
    "1.3b": "deepseek-community/deepseek-vl-1.3b-chat",
    "7b": "deepseek-community/deepseek-vl-7b-chat",
    "1.3b-base": "deepseek-community/deepseek-vl-1.3b-base",
    "7b-base": "deepseek-community/deepseek-vl-7b-base",
}
MODEL_TYPES = ("deepseek_vl", "deepseek_vl_hybrid")
_CONVERTED = (
    "use the converted models, deepseek-community/deepseek-vl-1.3b-chat and its siblings: --model 1.3b, --model 7b"
)
_INDEX = "model.safetensors.index.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST_HEADER = 10_000_000  # bytes; that of the 7b has 0.1 MB
_LONGEST_NAME = 255
_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The checked files of a model.

    Attributes:
        name: as the user gave it.
        path: the folder with all files.
        model_type: `deepseek_vl` (1.3b) or `deepseek_vl_hybrid` (7b).
        has_chat: False for a base model, which continues a text instead of answering.
        weight_bytes: the size of the stored weights.
        parameters: the number of parameters; for a quantized checkpoint, the number of stored values.
        config: `config.json`.
        fingerprint: hexadecimal; equal for equal weights, configuration and tokenizer.
        commit: the commit of the hub repository; None for a folder that is not from the hub.
        stored_dtype: the dtype of most weights, `float32`, `bfloat16` or `float16`; None if it is another one.
        has_own_head: whether the output head is stored separately from the embeddings, regardless of the configuration.
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
        """Whether the stored weights are quantized."""
        return "quantization_config" in self.config


def find_checkpoint(options: LoadOptions, listener: Listener) -> Checkpoint:
    """Find the files of a model, download missing ones, and check them.

    Raises:
        UsageError: the model's name is unknown, or `revision` is given for a folder.
        DsvlError: the files are missing, damaged, of an unsupported model, or cannot be downloaded.
    """
    where = resolve_model(options.model)
    if isinstance(where, Path):
        if options.revision is not None:
            raise UsageError(f"--revision needs a model from the hub, but {options.model} is a local one")
        if _HUB_ID.fullmatch(options.model) and not options.model.startswith("."):
            listener.note(
                f"{options.model} is a folder here, which is used in place of the hub's model of that name"
                f" (--model ./{options.model} says so)"
            )
        return check_folder(options.model, where)
    if options.revision is None and (original := find_original(where)):
        raise refuse_original(original)
    return check_folder(options.model, _find_on_hub(where, options, listener), where)


def resolve_model(model: str) -> Path | str:
    """Resolve a model's name to a folder (a `Path`) or a hub repository (`org/name`).

    An alias takes precedence over a folder of the same name, and an existing folder over a hub id; `./name` is always
    a folder.

    Raises:
        SettingError: it is neither, or a path that is not a folder's.
    """
    alias = model.lower()
    if alias == EMBEDDED:
        return EMBEDDED_FOLDER
    if alias in ALIASES:
        return ALIASES[alias]
    # os.path: pathlib raises for invalid file names
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        return Path(path).resolve()
    if os.path.exists(path):
        problem, way = f"{model} is a file, but a model is a folder", f"try --model {Path(path).parent}"
        raise SettingError("model", model, problem, way, is_whole=True)
    if model.startswith((".", "~", os.sep)) or model.endswith("/") or model.count("/") > 1 or "\\" in model:
        problem, way = f"there is no folder {model}", "check the path; a model from the hub is written org/name"
        raise SettingError("model", model, problem, way, is_whole=True)
    if _HUB_ID.fullmatch(model):
        return model
    near = suggest_alias(alias) or next(iter(difflib.get_close_matches(alias, ALIASES, n=1, cutoff=0.4)), None)
    guess = f"did you mean {near}? " if near else ""
    ways = f"{guess}use {', '.join(ALIASES)}, a hub id org/name, or a folder"
    raise SettingError("model", model, f"there is no model {model!r}", ways, is_whole=True)


def _find_on_hub(repo: str, options: LoadOptions, listener: Listener) -> Path:
    """Return a repository's folder in the cache; a complete one is used without contacting the hub."""
    cached = hub.find_snapshot(repo, options.revision)
    if cached is not None and not find_missing(cached):
        return cached
    if options.offline or hub.is_offline():
        part = "only partly" if cached is not None else "not"
        reason = "--offline" if options.offline else "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE"
        raise DsvlError(f"{repo} is {part} on this machine, and {reason} forbids downloading it", hub.WAYS_ON)

    def accept(folder: Path) -> None:
        _check_type(repo, read_object(folder / "config.json"), [repo])

    return hub.download(repo, options.revision, listener, accept)


def check_folder(name: str, folder: Path, repo: str | None = None, *, identify: bool = True) -> Checkpoint:
    """Check that a folder has a complete model that dsvl supports.

    Args:
        name: as the user gave it.
        folder: with `config.json` and the other files.
        repo: its hub id, if it has one.
        identify: read the whole weights for the fingerprint, which is empty otherwise, and not only their headers.

    Raises:
        DsvlError: something is missing, damaged or unsupported.
    """
    if not (folder / "config.json").is_file():
        raise DsvlError(f"{name} is not a model: {folder} has no config.json", "a model is a folder with config.json")
    config = read_object(folder / "config.json")
    names = (repo or "", folder.name, _repository_of(folder))
    model_type = _check_type(name, config, names)
    check_config(name, config)
    missing = find_missing(folder)
    if any(file.endswith(".safetensors") for file in missing) and any(folder.glob("*.bin")):
        raise DsvlError(
            f"{name} has weights in .bin files, but dsvl only loads safetensors",
            "pickled weights can run code; look for a safetensors version of the model",
        )
    if missing:
        raise DsvlError(f"{name} is incomplete: {folder} has no {_join(missing)}", "copy or download the model again")
    weights = list_weights(folder)
    tensors = [entry for path in weights for entry in _read_entries(path).items()]
    entries = [entry for _, entry in tensors]
    check_tensors(name, config, tensors)
    stored = {canonical_name(name) for name, _ in tensors}
    return Checkpoint(
        name=name,
        path=folder,
        model_type=model_type,
        has_chat=find_chat_template(folder) is not None and not any(map(is_base_name, names)),
        weight_bytes=sum(path.stat().st_size for path in weights),
        parameters=sum(math.prod(entry.shape) for entry in entries),
        config=config,
        fingerprint=_take_fingerprint(folder, weights) if identify else "",
        commit=folder.name if folder.parent.name == "snapshots" else None,
        stored_dtype=_find_dtype(entries),
        has_own_head={EMBEDDINGS, HEAD} <= stored,
    )


def _find_dtype(entries: Iterable[_Entry]) -> str | None:
    """Return the dtype of most of the values, by its torch name."""
    numbers: Counter[str] = Counter()
    for entry in entries:
        numbers[entry.dtype] += math.prod(entry.shape)
    most = max(numbers, key=numbers.__getitem__, default="")
    return {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(most)


def find_missing(folder: Path) -> list[str]:
    """List the missing files of a model; of alternatives, the usual one."""
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        missing.append("processor_config.json")
    return missing + [path.name for path in list_weights(folder) if not path.is_file()]


def list_weights(folder: Path) -> list[Path]:
    """List the safetensors files of the weights, whether they exist or not.

    Raises:
        DsvlError: the index is damaged.
    """
    index = folder / _INDEX
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return [folder / "model.safetensors"]
    shards = read_object(index).get("weight_map")
    # The names are not trusted: they must not lead out of the folder.
    if not isinstance(shards, dict) or not all(_is_shard(name) for name in shards.values()):
        raise DsvlError(f"{index} lists no weights", "the index is damaged: download the model again")
    return [folder / name for name in sorted(set(shards.values()))]


def _is_shard(name: object) -> bool:
    is_short = isinstance(name, str) and len(os.fsencode(name)) <= _LONGEST_NAME and "\0" not in name
    return isinstance(name, str) and is_short and name.endswith(".safetensors") and Path(name).name == name


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor in the header of a safetensors file; the dtype has the format's own name, such as `BF16`."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the tensors in a safetensors file, by name.

    Raises:
        DsvlError: the file is truncated or not a safetensors file.
    """
    return {name: entry.shape for name, entry in _read_entries(path).items()}


def _read_entries(path: Path) -> dict[str, _Entry]:
    """Read the header of a safetensors file.

    The format: the length of the header in 8 bytes (little endian), the header in JSON, then the tensor data that
    `data_offsets` in the header refers to (https://github.com/huggingface/safetensors#format).
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
        entries = {name: _parse_entry(entry) for name, entry in tensors.items()}
    except OSError as error:
        raise DsvlError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DsvlError(f"{path} is not a safetensors file", "it is damaged: download it again") from error
    if size < end:
        raise _truncated(path, size, end)
    return entries


def _parse_entry(entry: Any) -> _Entry:
    """Read what a header says of a tensor.

    Raises:
        KeyError, TypeError, ValueError: it is not what the format says.
    """
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, begin, end]
    if not isinstance(dtype, str) or not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError("neither a dtype nor a shape")
    if dtype in _WIDTHS and math.prod(shape) * _WIDTHS[dtype] != end - begin:
        raise ValueError("the shape does not fit the data")
    return _Entry(dtype, tuple(shape))


def _truncated(path: Path, size: int, expected: int) -> DsvlError:
    # In a hub cache the file is a symlink, and its target has to be deleted.
    return DsvlError(
        f"{path} is truncated: it has {size:,} of {expected:,} bytes",
        f"delete {path.resolve()}, then copy or download it again",
    )


def is_base_name(name: str) -> bool:
    """Whether a model's name is that of a base model: `deepseek-vl-7b-base`, `7b-base-nf4`.

    The files do not show it: one converter wrote all DeepSeek checkpoints, and a base model may have a chat template.
    """
    parts = re.split(r"[-_./\\]+", name.lower())
    return "base" in parts and "chat" not in parts


def _repository_of(folder: Path) -> str:
    """Return the repository, `org--name`, if the folder is a snapshot in a hub cache, else ""."""
    is_snapshot = folder.parent.name == "snapshots"
    return folder.parent.parent.name.removeprefix("models--") if is_snapshot else ""


def _check_type(name: str, config: dict[str, Any], names: Iterable[str]) -> str:
    model_type = config.get("model_type")
    if model_type in MODEL_TYPES:
        return str(model_type)
    if (refusal := refuse_folder(name, config, names)) is not None:
        raise refusal
    raise DsvlError(f"{name} has model type {model_type!r}, but dsvl supports {' and '.join(MODEL_TYPES)}", _CONVERTED)


def _take_fingerprint(folder: Path, weights: list[Path]) -> str:
    """Return a SHA-256 of the whole content of all files that the answers depend on."""
    digest = hashlib.sha256()
    for name in SETTINGS_FILES:
        path = folder / name
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    for path in weights:
        digest.update(bytes.fromhex(hash_file(path)))
    return digest.hexdigest()


def _join(names: list[str]) -> str:
    """Join the first names of a list, and the number of further ones."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"

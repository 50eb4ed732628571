"""An on-disk store of KV caches for prompt prefixes, so that a later process need not compute them again.

A prompt is stored in parts: one up to the end of each picture, and one for the rest without the last token, which has
to be computed to get the answer. Asking the same question again thus computes one token, and another question about
the same pictures only its text. Prompts with a common prefix share its parts, and a longer conversation only adds
new ones.

A part is a file named by two hashes: of everything before it and of everything up to its end. They cover the prompt
(token ids, the pictures' SHA-256) and everything else that determines the values (`identify`). The longest stored
prefix of a prompt is found from the file names alone, without an index that could become stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from dsvl_cli import __version__
from dsvl_cli.engine.checkpoint.find import Checkpoint
from dsvl_cli.engine.machine.plan import Plan
from dsvl_cli.engine.network.decoder import Decoder
from dsvl_cli.engine.network.kv_cache import GROWTH, KVCache, PrefixCache
from dsvl_cli.engine.progress import Listener
from dsvl_cli.engine.quantization.formats import Recipe
from dsvl_cli.engine.storage.cache_folder import BoundedFolder, kept_prefixes_folder
from dsvl_cli.engine.storage.private import is_private_file
from dsvl_cli.engine.text.prompt import PreparedPrompt, TokenKey

_VERSION = "1"  # of the files
_DIGITS = 32  # of a hash in a name


def identify(checkpoint: Checkpoint, plan: Plan, recipe: Recipe | None, decoder: Decoder) -> str:
    """Return everything besides the prompt that determines the values in a KV cache."""
    quantized = "" if recipe is None else f"{recipe.format.name} {recipe.group_size}"
    parts = () if recipe is None else (recipe.include_vision, recipe.include_head)
    kernels = decoder.kernels
    facts = [_VERSION, __version__, torch.__version__, checkpoint.fingerprint, plan.device, plan.device_map, plan.dtype]
    facts += [str(plan.attention), quantized, str(parts), kernels.name, str(kernels.compute_dtype)]
    for name in ("preprocessor_config.json", "processor_config.json"):  # the image preprocessing
        file = checkpoint.path / name
        facts.append(hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "")
    return "\n".join(facts)


@dataclass(frozen=True, slots=True)
class _Part:
    """A file with the KV cache of a prompt's positions `start` to `end`."""

    path: Path
    start: int
    end: int


class PrefixStore:
    """The stored prefixes of one model.

    Args:
        identity: see `identify`.
        decoder: whose KV caches are stored.
        listener: notified, once, if nothing can be saved.
        folder: where to store them; `kept_prefixes_folder()` by default.
    """

    def __init__(
        self, identity: str, decoder: Decoder, listener: Listener, folder: BoundedFolder | None = None
    ) -> None:
        self.folder = folder or kept_prefixes_folder()
        self._identity = identity
        self._decoder = decoder
        self._listener = listener
        self._can_save = True

    @torch.inference_mode()
    def load(self, keys: Sequence[TokenKey], cache: KVCache, reserve: int) -> int:
        """Append the longest stored prefix of a prompt to a cache and return the cache's new length.

        Args:
            keys: of the prompt; the cache holds the first `cache.length` of them.
            cache: is extended.
            reserve: positions to allocate if it is empty.
        """
        chain = self._find_chain(self._hash_prefixes(keys))
        used = []
        for part in chain:
            if part.end > cache.length:
                if not self._read(part, cache, reserve):
                    break
                cache.length = part.end
            used.append(part.path)
        _touch(used)
        return cache.length

    def save(self, prompt: PreparedPrompt, cache: KVCache) -> None:
        """Save the parts of a prompt that are not stored yet; after a failure, report it and stop trying.

        Args:
            prompt: has been computed.
            cache: starts with it.
        """
        if not self._can_save or cache.length < len(prompt):
            return
        hashes = self._hash_prefixes(prompt.keys[:-1])
        chain = self._find_chain(hashes)
        paths = [part.path for part in chain]
        _touch(paths)  # before old files are evicted
        start = chain[-1].end if chain else 0
        try:
            for end in _cuts(prompt):
                if end > start:
                    name = f"{hashes[start]}-{hashes[end]}"
                    tensors = _slice(cache, start, end)
                    self.folder.write(name, tensors, _describe(name, tensors))
                    paths.append(self.folder.place(name))
                    start = end
        except OSError as exc:
            self._can_save = False
            self._listener.note(f"the prompt cannot be cached in {self.folder.path}: {exc.strerror or exc}")
        _touch(paths)

    def _hash_prefixes(self, keys: Sequence[TokenKey]) -> list[str]:
        """Return the hash of each prefix, starting with the empty one."""
        digest = hashlib.sha256(self._identity.encode())
        hashes = [digest.hexdigest()[:_DIGITS]]
        for key in keys:
            digest.update(f" {key}".encode() if isinstance(key, int) else f" {key[0]}:{key[1]}".encode())
            hashes.append(digest.hexdigest()[:_DIGITS])
        return hashes

    def _find_chain(self, hashes: Sequence[str]) -> list[_Part]:
        """Find the longest chain of parts in which each starts where the previous one ends."""
        positions = {digest: position for position, digest in enumerate(hashes)}
        parts = []
        for path in _list_names(self.folder.path):
            start, _, end = path.stem.partition("-")
            if positions.get(start, len(hashes)) < positions.get(end, 0):
                parts.append(_Part(path, positions[start], positions[end]))
        chains: dict[int, list[_Part]] = {0: []}
        for part in sorted(parts, key=lambda part: (part.start, part.end)):
            if part.start in chains:
                chains.setdefault(part.end, [*chains[part.start], part])
        return chains[max(chains)]

    def _read(self, part: _Part, cache: KVCache, reserve: int) -> bool:
        """Append a part, or the positions of it that a cache lacks; a damaged file is deleted, to be saved again."""
        if not is_private_file(part.path):
            return False
        try:
            with safe_open(part.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
                metadata = file.metadata()
            self._check(tensors, metadata, part)
        except (OSError, SafetensorError, ValueError):
            with contextlib.suppress(OSError):
                part.path.unlink(missing_ok=True)
            return False
        new = slice(cache.length - part.start, None)
        for index, layer in enumerate(cache.layers):
            keys, values = (tensors[f"{kind}.{index}"][:, new].to(self._decoder.device) for kind in ("keys", "values"))
            layer.write(cache.length, keys, values, reserve)
        return True

    def _check(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None, part: _Part) -> None:
        """Check that a file has the expected contents.

        Raises:
            ValueError: it has not.
        """
        config = self._decoder.config
        shape = (config.kv_heads, part.end - part.start, config.head_dim)
        names = {f"{kind}.{index}" for kind in ("keys", "values") for index in range(config.layers)}
        are_right = all(x.shape == shape and x.dtype == self._decoder.cache_dtype for x in tensors.values())
        if set(tensors) != names or not are_right:
            raise ValueError("unexpected tensors")
        described = _describe(part.path.stem, tensors)
        if {name: (metadata or {}).get(name) for name in described} != described:
            raise ValueError("damaged")


class StoredPrefixCache(PrefixCache):
    """A `PrefixCache` that also loads what an earlier process has saved to disk.

    Args:
        cache: empty.
        store: the prefixes on disk.
    """

    def __init__(self, cache: KVCache, store: PrefixStore) -> None:
        super().__init__(cache)
        self._store = store

    def reuse(self, keys: Sequence[TokenKey]) -> int:
        """Truncate the cache to its common prefix with a prompt, and append what is stored of the rest."""
        common = super().reuse(keys)
        reached = self._store.load(keys[:-1], self.cache, len(keys) + GROWTH)
        self.commit(keys[common:reached])
        return reached


def _cuts(prompt: PreparedPrompt) -> Iterator[int]:
    """Yield where the parts of a prompt end: after each picture, and before the last token."""
    last = len(prompt) - 1
    is_picture = [token_id == prompt.image_token_id for token_id in prompt.token_ids]
    seen = 0
    for position in range(last):
        seen += is_picture[position]
        if is_picture[position] and seen % prompt.num_image_tokens == 0:
            yield position + 1
    yield last


def _slice(cache: KVCache, start: int, end: int) -> dict[str, torch.Tensor]:
    tensors = {}
    for index, layer in enumerate(cache.layers):
        keys, values = layer.read(end)
        tensors[f"keys.{index}"], tensors[f"values.{index}"] = keys[:, start:].cpu(), values[:, start:].cpu()
    return tensors


def _describe(name: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return a file's metadata: its name, and the sum of its words as a checksum, much faster than a hash."""
    total = sum(int(tensor.reshape(-1).view(torch.int32).sum(dtype=torch.int64)) for tensor in tensors.values())
    return {"name": name, "checksum": str(total)}


def _list_names(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.glob("*.safetensors"))
    return []


def _touch(paths: Sequence[Path]) -> None:
    """Mark files as just used; a part is evicted before those that it depends on."""
    now = time.time_ns()
    for position, path in enumerate(paths):
        with contextlib.suppress(OSError):
            # Steps of a microsecond: not every file system has a finer resolution.
            os.utime(path, ns=(now - position * 1000, now - position * 1000))

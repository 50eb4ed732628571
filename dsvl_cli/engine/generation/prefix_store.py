"""Prompts that were computed are kept on disk, so that a later process need not compute them again.

A prompt is kept in parts: up to the end of each of its pictures, and the rest without its last token, from whose
computation the answer follows. So the same question costs one token, and another one about the same pictures its text.
Parts of different prompts that begin alike are the same part, and a longer conversation adds only what is new.

A part is a file named after the hash of everything before it and the hash of everything up to its end: what was read
(token ids, the pictures' SHA-256) and whatever else decides about the numbers (`identify`). Looking for the longest
kept prefix of a prompt takes the names alone, and there is no index that could be wrong.
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
from dsvl_cli.engine.text.prompt import PreparedPrompt, TokenKey

_VERSION = "1"  # of the files
_DIGITS = 32  # of a hash in a name


def identify(checkpoint: Checkpoint, plan: Plan, recipe: Recipe | None, decoder: Decoder) -> str:
    """Write down what decides, beside a prompt, about the numbers in a cache."""
    quantized = "" if recipe is None else f"{recipe.format.name} {recipe.group_size}"
    parts = () if recipe is None else (recipe.include_vision, recipe.include_head)
    kernels = decoder.kernels
    facts = [_VERSION, __version__, torch.__version__, checkpoint.fingerprint, plan.device, plan.device_map, plan.dtype]
    facts += [str(plan.attention), quantized, str(parts), kernels.name, str(kernels.compute_dtype)]
    for name in ("preprocessor_config.json", "processor_config.json"):  # how pictures become pixels
        file = checkpoint.path / name
        facts.append(hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "")
    return "\n".join(facts)


@dataclass(frozen=True, slots=True)
class _Part:
    """A file with the positions from `start` to `end` of a prompt."""

    path: Path
    start: int
    end: int


class KeptPrefixes:
    """The folder, for one model.

    Args:
        identity: see `identify`.
        decoder: whose states are kept.
        listener: is told, once, when nothing can be kept.
        folder: where; by default `kept_prefixes_folder()`.
    """

    def __init__(
        self, identity: str, decoder: Decoder, listener: Listener, folder: BoundedFolder | None = None
    ) -> None:
        self.folder = folder or kept_prefixes_folder()
        self._identity = identity
        self._decoder = decoder
        self._listener = listener
        self._can_keep = True

    @torch.inference_mode()
    def load(self, keys: Sequence[TokenKey], cache: KVCache, reserve: int) -> int:
        """Append to a cache what is kept of a prompt; give how many positions it then holds.

        Args:
            keys: the cache holds the first `cache.length` of them.
            cache: grows.
            reserve: positions to make room for if it is empty.
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

    def keep(self, prompt: PreparedPrompt, cache: KVCache) -> None:
        """Write what is not kept yet of a prompt; where that fails, it is told once and nothing is tried again.

        Args:
            prompt: was computed.
            cache: begins with it.
        """
        if not self._can_keep or cache.length < len(prompt):
            return
        hashes = self._hash_prefixes(prompt.keys[:-1])
        chain = self._find_chain(hashes)
        paths = [part.path for part in chain]
        _touch(paths)  # before room is made
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
            self._can_keep = False
            self._listener.note(f"the prompt cannot be kept for a later process: {exc.strerror or exc}")
        _touch(paths)

    def _hash_prefixes(self, keys: Sequence[TokenKey]) -> list[str]:
        """Give the hash of each prefix, the empty one first."""
        digest = hashlib.sha256(self._identity.encode())
        hashes = [digest.hexdigest()[:_DIGITS]]
        for key in keys:
            digest.update(f" {key}".encode() if isinstance(key, int) else f" {key[0]}:{key[1]}".encode())
            hashes.append(digest.hexdigest()[:_DIGITS])
        return hashes

    def _find_chain(self, hashes: Sequence[str]) -> list[_Part]:
        """Find the parts, each beginning where the one before it ends, that reach farthest."""
        places = {digest: place for place, digest in enumerate(hashes)}
        parts = []
        for path in _list_names(self.folder.path):
            start, _, end = path.stem.partition("-")
            if places.get(start, len(hashes)) < places.get(end, 0):
                parts.append(_Part(path, places[start], places[end]))
        chains: dict[int, list[_Part]] = {0: []}
        for part in sorted(parts, key=lambda part: (part.start, part.end)):
            if part.start in chains:
                chains.setdefault(part.end, [*chains[part.start], part])
        return chains[max(chains)]

    def _read(self, part: _Part, cache: KVCache, reserve: int) -> bool:
        """Append a part, or what a cache does not hold of it; a damaged one is removed, to be written anew."""
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
        """Compare a file with what it must be.

        Raises:
            ValueError: it is something else.
        """
        config = self._decoder.config
        shape = (config.kv_heads, part.end - part.start, config.head_dim)
        names = {f"{kind}.{index}" for kind in ("keys", "values") for index in range(config.layers)}
        are_right = all(x.shape == shape and x.dtype == self._decoder.cache_dtype for x in tensors.values())
        if set(tensors) != names or not are_right:
            raise ValueError("not such a file")
        described = _describe(part.path.stem, tensors)
        if {name: (metadata or {}).get(name) for name in described} != described:
            raise ValueError("damaged")


class LastingPrefixCache(PrefixCache):
    """A `PrefixCache` that also takes from the disk what an earlier process has kept.

    Args:
        cache: empty.
        kept: where that is.
    """

    def __init__(self, cache: KVCache, kept: KeptPrefixes) -> None:
        super().__init__(cache)
        self._kept = kept

    def reuse(self, keys: Sequence[TokenKey]) -> int:
        """Cut the cache back to what it has in common with a prompt, and add what is kept of the rest."""
        common = super().reuse(keys)
        reached = self._kept.load(keys[:-1], self.cache, len(keys) + GROWTH)
        self.commit(keys[common:reached])
        return reached


def _cuts(prompt: PreparedPrompt) -> Iterator[int]:
    """Give where parts of a prompt end: behind each picture, and before the last token."""
    last = len(prompt) - 1
    is_picture = [token_id == prompt.image_token_id for token_id in prompt.token_ids]
    seen = 0
    for place in range(last):
        seen += is_picture[place]
        if is_picture[place] and seen % prompt.num_image_tokens == 0:
            yield place + 1
    yield last


def _slice(cache: KVCache, start: int, end: int) -> dict[str, torch.Tensor]:
    tensors = {}
    for index, layer in enumerate(cache.layers):
        keys, values = layer.read(end)
        tensors[f"keys.{index}"], tensors[f"values.{index}"] = keys[:, start:].cpu(), values[:, start:].cpu()
    return tensors


def _describe(name: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Give what a file says about itself: its name, and its bits added up, which is much faster than a hash."""
    total = sum(int(tensor.reshape(-1).view(torch.int32).sum(dtype=torch.int64)) for tensor in tensors.values())
    return {"name": name, "checksum": str(total)}


def _list_names(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.glob("*.safetensors"))
    return []


def _touch(paths: Sequence[Path]) -> None:
    """Mark files as just used; a part goes before those it builds upon, without which it is of no use."""
    now = time.time_ns()
    for place, path in enumerate(paths):
        with contextlib.suppress(OSError):
            # Microseconds: not every file system counts in smaller steps.
            os.utime(path, ns=(now - place * 1000, now - place * 1000))

"""`dsvl models`: lists models with their size, format and whether they fit, and removes downloaded ones."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.inventory import (
    Fit,
    ModelEntry,
    PackedWeights,
    find_cached_repos,
    list_models,
    list_packed,
)
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.confirmation import confirm_removal
from dsvl_cli.terminal.sanitize import sanitize_line
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from dsvl_cli.terminal.console import Console

_PACKED = "packed"
_WIDE = 100  # columns
_MOST_PACKED = 8  # names of packed weights in a table
_SEE = "dsvl models lists what is here"


def print_models(console: Console, aliases: Mapping[str, str], *, as_json: bool) -> None:
    """List the models: as a table on a terminal, as tab-separated fields in a pipe, or as JSON.

    The fields are name, kind, size in bytes, format, and state.
    """
    with console.working("looking at the models and at this machine"):
        from dsvl_cli.engine.machine.detect import detect_machine

        entries = list_models(aliases, detect_machine())
        packed = list_packed()
    if as_json:
        rows = [*map(_to_object, entries), *map(_packed_object, packed)]
        console.write("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
        return
    if not console.answer_is_terminal:
        fields = [
            *((entry.name, entry.kind, _size_here(entry), entry.format, describe_state(entry)) for entry in entries),
            *((file.name, _PACKED, file.size_bytes, _packed_format(file), str(file.path)) for file in packed),
        ]
        console.write("".join("\t".join(" ".join(str(f or "").split()) for f in row) + "\n" for row in fields))
        return
    is_wide = console.width >= _WIDE  # the ids of the hub are long
    table = [
        (entry.name, _size(_size_here(entry)), entry.format or "-", describe_state(entry, with_target=is_wide))
        for entry in entries
    ]
    table += _summarize_packed(packed)
    safe = [tuple(map(sanitize_line, row)) for row in [("NAME", "SIZE", "FORMAT", ""), *table]]
    # No line is broken between a number and its unit.
    whole = [(*row[:-1], re.sub(r"(?<=\d) (?=[kMGT]?B\b)", "\xa0", row[-1])) for row in safe]
    console.write("".join(f"{line}\n".replace("\xa0", " ") for line in align(whole, console.width)))


def describe_state(entry: ModelEntry, *, with_target: bool = True) -> str:
    """Return where a model is, and whether it would fit; what an alias stands for only `with_target`."""
    target = (
        ""
        if not with_target or entry.kind in ("built in", "folder") or entry.name == entry.target
        else f"{entry.target}: "
    )
    if entry.problem is not None:
        return f"{target}{entry.problem}"
    if entry.path is None:
        size = f", {format_bytes(entry.size_bytes)} to download" if entry.size_bytes else ""
        place = f"not on this machine{size}"
    else:
        place = "built in" if entry.kind == "built in" else "on this machine"
    return f"{target}{place}{'' if entry.fit is None else f'; {describe_fit(entry.fit)}'}"


def describe_fit(fit: Fit) -> str:
    """Return in words whether a model fits in memory."""
    amounts = f"{format_bytes(fit.needed_bytes)} of {format_bytes(fit.free_bytes)} free on {fit.device}"
    if fit.fits:
        return f"fits ({amounts})"
    advice = "; fits with --quantization 4bit" if fit.fits_in_4bit else ""
    return f"does not fit (needs {amounts}){advice}"


def remove_models(console: Console, names: Sequence[str], aliases: Mapping[str, str], *, yes: bool) -> None:
    """Remove models from the hub cache and packed weights from dsvl's cache, after asking, and say how much is freed.

    Args:
        console: where to ask.
        names: aliases, hub ids, names of packed weights, or `packed` for all of these.
        aliases: the user's own aliases.
        yes: do not ask.

    Raises:
        UsageError: there is no terminal to ask on.
        DsvlError: one of the names is not that of a model that can be removed; then none is.
    """
    repos, packed = find_cached_repos(), list_packed()
    entries = {entry.name.lower(): entry for entry in list_models(aliases)}
    found: dict[str, _Removable] = {}
    for name in names:
        found |= {each.key: each for each in _find_removable(name, entries, repos, packed)}
    if not found:
        console.status("there are no packed weights")
        return
    what = "it" if len(found) == 1 else f"these {len(found)}"
    items = (f"{each.name}  {format_bytes(each.size_bytes)}" for each in found.values())
    if not yes and not confirm_removal(console, what, items):
        console.status("nothing is removed")
        return
    freed = 0
    for each in found.values():
        each.remove()
        freed += each.size_bytes
        console.status(f"removed {each.name}")
    console.status(f"{format_bytes(freed)} freed")


@dataclass(frozen=True, slots=True)
class _Removable:
    """A cached repository, or a file of packed weights.

    Attributes:
        name: the hub id, or the name of the file.
        size_bytes: what is freed.
        thing: the repository of `huggingface_hub`, or the file.
    """

    name: str
    size_bytes: int
    thing: Any

    @property
    def key(self) -> str:
        """Differs from that of all others."""
        return str(self.thing.path) if isinstance(self.thing, PackedWeights) else self.name

    def remove(self) -> None:
        """Remove it."""
        try:
            if isinstance(self.thing, PackedWeights):
                self.thing.path.unlink(missing_ok=True)
                return
            from huggingface_hub import constants, scan_cache_dir

            # Of this repository alone: copies of it have the same commits.
            cache = replace(scan_cache_dir(Path(constants.HF_HUB_CACHE)), repos=frozenset({self.thing}))
            cache.delete_revisions(*(revision.commit_hash for revision in self.thing.revisions)).execute()
            if Path(self.thing.repo_path).exists():  # huggingface_hub only logs what it cannot remove
                shutil.rmtree(self.thing.repo_path)
        except OSError as exc:
            raise DsvlError(f"{self.name} cannot be removed: {exc.strerror}", "check the permissions") from exc


def _find_removable(
    name: str, entries: Mapping[str, ModelEntry], repos: Mapping[str, Any], packed: Sequence[PackedWeights]
) -> list[_Removable]:
    files = [file for file in packed if name == _PACKED or file.name == name]
    if files or name == _PACKED:
        return [_Removable(file.name, file.size_bytes, file) for file in files]
    entry = entries.get(name.lower())
    repo = name if entry is None else entry.target
    if repo in repos:
        return [_Removable(repo, repos[repo].size_on_disk, repos[repo])]
    if entry is not None and entry.kind == "built in":
        raise DsvlError(f"{name} is built into dsvl", "pip uninstall dsvl removes it")
    if (entry is not None and entry.path is not None) or Path(name).exists():
        place = name if entry is None else entry.path
        raise DsvlError(
            f"{name} is a folder of yours, and dsvl removes only what it has downloaded or packed",
            f"remove {place} yourself",
        )
    if entry is not None or "/" in name:
        raise DsvlError(f"no model {repo} is in the hub cache", _SEE)
    raise DsvlError(f"there is no model {name!r}", _SEE)


def _summarize_packed(packed: Sequence[PackedWeights]) -> list[tuple[str, str, str, str]]:
    """Return a row for each name of packed weights, or a single one if there are many."""
    sizes: dict[str, int] = {}
    for file in packed:
        sizes[file.name] = sizes.get(file.name, 0) + file.size_bytes
    if len(sizes) > _MOST_PACKED:
        rest = f"{len(packed)} files of packed weights, made again if needed; --json lists them"
        return [(_PACKED, format_bytes(sum(sizes.values())), "-", rest)]
    meaning = "packed weights, made again if needed"
    return [(name, format_bytes(size), name.partition("-")[2] or "-", meaning) for name, size in sizes.items()]


def _size_here(entry: ModelEntry) -> int | None:
    return None if entry.path is None else entry.size_bytes


def _to_object(entry: ModelEntry) -> dict[str, Any]:
    fit = entry.fit
    return {
        "name": entry.name,
        "kind": entry.kind,
        "target": entry.target,
        "path": None if entry.path is None else str(entry.path),
        "bytes": _size_here(entry),
        "download_bytes": entry.size_bytes if entry.path is None else None,
        "format": entry.format or None,
        "problem": entry.problem,
        "fits": None if fit is None else fit.fits,
        "fits_in_4bit": None if fit is None else fit.fits_in_4bit,
        "needed_bytes": None if fit is None else fit.needed_bytes,
        "free_bytes": None if fit is None else fit.free_bytes,
        "device": None if fit is None else fit.device,
    }


def _packed_object(file: PackedWeights) -> dict[str, Any]:
    return {
        "name": file.name, "kind": _PACKED, "path": str(file.path), "bytes": file.size_bytes,
        "format": _packed_format(file),
    }  # fmt: skip


def _packed_format(file: PackedWeights) -> str:
    return file.name.partition("-")[2] or "packed"


def _size(count: int | None) -> str:
    return "-" if count is None else format_bytes(count)

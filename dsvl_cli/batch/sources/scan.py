"""Finds the items of sources: folders, glob patterns, files, lists of names, and files that hold many pictures.

Items are found lazily: the first is available immediately, and memory use stays small for millions.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from typing import BinaryIO

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.path_set import PathSet
from dsvl_cli.batch.sources.identity import canonical
from dsvl_cli.batch.sources.leftovers import Exclusion, Skipped, is_leftover_file, is_leftover_folder
from dsvl_cli.batch.sources.webdataset import TARS, scan_tar
from dsvl_cli.engine.encodings import split_names
from dsvl_cli.engine.pictures.access import FOREIGN, Access, address_id, is_url, shown_address
from dsvl_cli.engine.pictures.addresses import decode_data_address, is_data_address, local_path, shown_source
from dsvl_cli.engine.pictures.images import PICTURE_EXTENSIONS, is_address, read_file
from dsvl_cli.engine.pictures.patterns import match_files
from dsvl_cli.errors import DsvlError, ImageError, UsageError

# What a run leaves beside its output.
SETTINGS_SUFFIX = ".settings.json"
JOURNAL_SUFFIX = ".journal.jsonl"
_HOLDERS = (".parquet", *TARS)  # files that hold many pictures; also searched for in folders without pictures


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How folders are searched.

    Attributes:
        recursive: search subfolders.
        extensions: file extensions of pictures, lower case, with the dot.
        follow_links: follow symbolic links within folders. Each real folder is entered once, so loops end.
        column: the picture column of Parquet tables; None to detect it.
        access: what names in files may lead to; a name given to `scan` itself may lead anywhere.
        tell: called with a message for each folder that cannot be read.
        outputs: the files that the run writes: they are no sources, wherever they are.
        every: take hidden files, thumbnails and system files too.
        exclusion: what to leave out, wherever it was found or named.
        skipped: counts what was left out.
        custom_ids: the `custom_id`s of the requests found so far, with file and line.
    """

    recursive: bool = False
    extensions: frozenset[str] = frozenset(PICTURE_EXTENSIONS)
    follow_links: bool = False
    column: str | None = None
    access: Access = FOREIGN
    tell: Callable[[str], None] = lambda _: None
    outputs: PathSet = field(default_factory=PathSet, compare=False)
    every: bool = False
    exclusion: Exclusion = field(default_factory=Exclusion, compare=False)
    skipped: Skipped = field(default_factory=Skipped, compare=False)
    custom_ids: dict[str, tuple[str, int]] = field(default_factory=dict, repr=False, compare=False)


def scan(sources: Sequence[str], names: BinaryIO | None = None, options: ScanOptions | None = None) -> Iterator[Item]:
    """Find the items of all sources without duplicate ids, source by source, each sorted by name.

    Args:
        sources: folders, glob patterns, files, addresses; a `.parquet`, `.tar`, `.tar.gz` or `.jsonl` holds many items.
        names: a stream of paths, one per line, or NUL-terminated as from `find -print0`; read incrementally. Its paths
            may lead anywhere, as a list made by `find` does, but its URLs only where `options.access` allows.
        options: how folders are searched.

    Raises:
        DsvlError: a source does not exist or cannot be read. Raised by this call where possible, otherwise while
            iterating.
    """
    options = options or ScanOptions()
    found = [_open_source(source, options) for source in sources]
    if names is not None:
        found.append(_listed(names, options))
    return _each_once(chain.from_iterable(found))


def name_key(path: str) -> str:
    """Return a sort key for a path: folder by folder, numbers by value (2 before 10)."""
    return re.sub("[0-9]+", _number_key, path.replace(os.sep, "\0")) + "\0\0" + path


def _number_key(match: re.Match[str]) -> str:
    digits = match.group().lstrip("0")
    return f"{len(digits):03d}{digits}"


def _each_once(items: Iterable[Item]) -> Iterator[Item]:
    seen = set()
    base = os.path.realpath(os.curdir)
    for item in items:
        key = f"\0{item.id}" if item.own_id else canonical(item.id, base)
        if key not in seen:
            seen.add(key)
            yield item


def _open_source(source: str, options: ScanOptions) -> Iterator[Item]:
    if source == "-":
        raise UsageError("- is not a valid source", "to read names from stdin, use --files-from -")
    if is_address(source):
        return iter([_url_item(source, options.access.as_typed())])
    if is_data_address(source):
        return iter([_data_item(source)])
    source = local_path(source)
    if os.path.isdir(source):
        return _search_folder(_tidy(source), options)
    if os.path.lexists(source):
        return _open_file(_tidy(source), options)
    if glob.has_magic(source):
        return _match(source, options)
    raise DsvlError(f"{shown_address(source)}: no such file or folder")


def _open_file(path: str, options: ScanOptions, root: str = "") -> Iterator[Item]:
    if _is_excluded(path, options, root):
        return iter(())
    kind = Path(path).suffix.lower()
    if kind == ".parquet":
        from dsvl_cli.batch.sources.parquet import scan_parquet

        return scan_parquet(path, options.column, options.access)
    if path.lower().endswith(TARS):
        return scan_tar(path, partial(_takes_member, options=options))
    if kind == ".jsonl":
        from dsvl_cli.batch.sources.requests import scan_requests

        return scan_requests(path, access=options.access, found=options.custom_ids)
    return iter([_file_item(path)])


def _file_item(path: str, root: str = "") -> Item:
    return Item(path, path, partial(_read, path), root=root)


def _read(path: str) -> Sequence[bytes]:
    return (read_file(Path(path), path),)


def _url_item(url: str, access: Access) -> Item:
    return Item(address_id(url), shown_address(url), partial(_fetch, url, access))


def _fetch(url: str, access: Access) -> Sequence[bytes]:
    from dsvl_cli.engine.pictures.fetch import fetch_picture

    return (fetch_picture(url, access)[0],)


def _data_item(address: str) -> Item:
    name = shown_source(address)
    return Item(name, name, lambda: (decode_data_address(address),))


def _tidy(path: str) -> str:
    """Remove redundant parts of a path, so that `./a` and `a` are one item."""
    path = re.sub("/(?:\\.?/)+", "/", path) if os.sep == "/" else path
    while path.startswith("./") and len(path) > 2:
        path = path[2:]
    return path


def _search_folder(folder: str, options: ScanOptions) -> Iterator[Item]:
    folder = folder.rstrip(os.sep) or os.sep
    try:
        with os.scandir(folder) as entries:
            listed = [entry for entry in entries if not _is_output(entry, options)]
            names = {entry.name for entry in listed}
            folders = {entry.name for entry in listed if entry.is_dir()}
    except OSError as exc:
        raise DsvlError(f"{folder}: cannot be read: {exc.strerror}") from exc
    visible = [name for name in names if not name.startswith(".") and not is_leftover_file(name)]
    holders = [name for name in visible if name.lower().endswith(_HOLDERS) and f"{name}{SETTINGS_SUFFIX}" not in names]
    # Beside each shard of img2dataset, or folder of its pictures, is a table of the same name with their texts alone.
    described = folders | {name[: -len(end)] for name in visible for end in TARS if name.lower().endswith(end)}
    holders = [
        name for name in holders if not name.lower().endswith(".parquet") or name[: -len(".parquet")] not in described
    ]
    if holders and {os.path.splitext(name)[1].lower() for name in visible}.isdisjoint(options.extensions):
        paths = sorted((_join(folder, name) for name in holders), key=name_key)
        return chain.from_iterable(_open_file(path, options, folder) for path in paths)
    return _walk(folder, options)


def _walk(root: str, options: ScanOptions) -> Iterator[Item]:
    """Yield the pictures of a folder sorted by name; hidden files and folders, thumbnails and the like are skipped."""
    entered: set[tuple[int, int]] = set()
    levels = [iter(_list_folder(root, root, options, entered))]  # not recursive: folders may be nested thousands deep
    while levels:
        path, kind = next(levels[-1], ("", ""))
        if not kind:
            levels.pop()
        elif kind == "file":
            yield _file_item(path, root)
        elif options.recursive:
            levels.append(iter(_list_folder(path, root, options, entered)))


def _list_folder(folder: str, root: str, options: ScanOptions, entered: set[tuple[int, int]]) -> list[tuple[str, str]]:
    """Return the files to take and folders to enter, sorted by name, each path with `file` or `folder`."""
    try:
        if options.follow_links:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                return []
            entered.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            listed = [(entry.name, _kind(entry, options)) for entry in entries if not _is_output(entry, options)]
    except OSError as exc:
        options.tell(f"{folder}: cannot be read: {exc.strerror}")
        return []
    kept = [(name, kind) for name, kind in listed if _is_of_interest(name, kind, options)]
    kept.sort(key=lambda entry: name_key(entry[0]))
    found = [(_join(folder, name), kind) for name, kind in kept if _is_wanted(name, kind, options)]
    return [(path, kind) for path, kind in found if not _is_excluded(path, options, root)]


def _is_of_interest(name: str, kind: str, options: ScanOptions) -> bool:
    return options.recursive if kind == "folder" else kind == "file" and _is_taken(name, options)


def _is_wanted(name: str, kind: str, options: ScanOptions) -> bool:
    """Whether a file or folder is nothing that is skipped by its name, unless everything is wanted."""
    if options.every:
        return True
    if is_leftover_folder(name) if kind == "folder" else is_leftover_file(name):
        options.skipped.add(name)
        return False
    return not name.startswith(".")


def _is_excluded(path: str, options: ScanOptions, root: str = "") -> bool:
    if not options.exclusion or (path if root in ("", os.curdir) else path[len(root) :]) not in options.exclusion:
        return False
    options.skipped.excluded += 1
    return True


def _takes_member(name: str, options: ScanOptions) -> bool:
    """Whether to take a picture of an archive, by its name in there."""
    parts = [part for part in name.split("/") if part not in ("", os.curdir, os.pardir)] or [name]
    kinds = ["folder"] * (len(parts) - 1) + ["file"]
    return all(map(_is_wanted, parts, kinds, [options] * len(parts))) and not _is_excluded(name, options)


def _kind(entry: os.DirEntry[str], options: ScanOptions) -> str:
    if entry.is_symlink() and not options.follow_links:
        return ""
    try:
        # Anything but a folder counts as a file: a broken link or pipe named like a picture becomes an error row.
        return "folder" if entry.is_dir() else "file"
    except OSError:
        return "file"


def _is_output(entry: os.DirEntry[str], options: ScanOptions) -> bool:
    return options.outputs.may_hold(entry) and entry.path in options.outputs


def _is_earlier_output(path: str) -> bool:
    """Whether a file was written by an earlier run, which left its settings beside it."""
    return path.endswith(JOURNAL_SUFFIX) or os.path.lexists(path + SETTINGS_SUFFIX)


def _is_taken(name: str, options: ScanOptions) -> bool:
    return os.path.splitext(name)[1].lower() in options.extensions


def _join(folder: str, name: str) -> str:
    return name if folder == os.curdir else os.path.join(folder, name)


def _match(pattern: str, options: ScanOptions) -> Iterator[Item]:
    """Find the files that match a pattern; only pictures, unless the pattern fixes the extension."""
    extension = os.path.splitext(pattern)[1]
    is_open = not extension or glob.has_magic(extension)
    paths = [
        _tidy(path)
        for path in match_files(pattern)
        if not os.path.isdir(path) and (not is_open or _is_taken(path, options))
    ]
    paths = [path for path in paths if path not in options.outputs and not _is_earlier_output(path)]
    wanted = [path for path in paths if options.every or not _is_leftover_of(path, pattern, options)]
    if paths and not wanted:
        raise DsvlError(f"{pattern}: only thumbnails and system files match this pattern", "--all takes them")
    paths = wanted
    if "**" in pattern:  # follows links
        paths = list({os.path.realpath(path): path for path in sorted(paths, key=len, reverse=True)}.values())
    if not paths:
        raise DsvlError(f"{pattern}: no file matches this pattern")
    root = os.sep.join(takewhile(lambda part: not glob.has_magic(part), _tidy(pattern).split(os.sep)[:-1]))
    return chain.from_iterable(_open_file(path, options, root) for path in sorted(paths, key=name_key))


def _is_leftover_of(path: str, pattern: str, options: ScanOptions) -> bool:
    """Whether a pattern found a thumbnail or the like, and did not name it or its folder."""
    named = pattern.split(os.sep)
    *folders, name = path.split(os.sep)
    found = [folder for folder in folders if folder not in named and is_leftover_folder(folder)]
    found += [name] if name not in named and is_leftover_file(name) else []
    if found:
        options.skipped.add(found[0])
    return bool(found)


def _listed(names: BinaryIO, options: ScanOptions) -> Iterator[Item]:
    for path in map(local_path, list_paths(names)):
        if is_data_address(path):
            yield _data_item(path)
        elif is_address(path) or (is_url(path) and not os.path.lexists(path)):
            yield _url_item(path, options.access)
        elif not _is_excluded(path, options):
            item = _file_item(_tidy(path))
            yield replace(item, read=partial(_refuse_output, path)) if path in options.outputs else item


def _refuse_output(path: str) -> Sequence[bytes]:
    raise ImageError(f"{path}: written by this run, so it cannot be one of its pictures")


def list_paths(names: BinaryIO) -> Iterator[str]:
    """Yield the paths and addresses of a list as they come; see `split_names`."""
    for path in split_names(names):
        if path.startswith("\ufeff") and not os.path.lexists(path):
            path = path[1:]  # of lists one after the other, each may have a byte order mark
        if path.endswith("\r") and not os.path.lexists(path):
            path = path[:-1]  # a list with Windows line endings
        if path:
            yield path

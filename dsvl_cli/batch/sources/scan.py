"""Sources -> items: folders, patterns, single files, lists of names, and what holds many pictures in one file.

Everything is found as it goes, so that the first item is there at once and the last of a million needs no more memory.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from dsvl_cli.batch.item import Item
from dsvl_cli.engine.pictures.images import PICTURE_EXTENSIONS, is_address, read_file
from dsvl_cli.errors import DsvlError, UsageError

_CHUNK_BYTES = 65536
_TARS = (".tar", ".tar.gz", ".tgz")
_HOLDERS = (".parquet", *_TARS)  # files that hold many pictures; a folder may be full of them


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How folders are searched.

    Attributes:
        recursive: look into the folders within a folder.
        extensions: of the files that are taken, lower case, each with its dot.
        follow_links: take links within a folder, too. Each real folder is entered once, so loops end.
        column: of a Parquet table, the one with the pictures; None where only one can be meant.
        offline: refuse addresses.
        tell: is told of each folder that cannot be read.
        custom_ids: of the requests that were found so far, with their places.
    """

    recursive: bool = False
    extensions: frozenset[str] = frozenset(PICTURE_EXTENSIONS)
    follow_links: bool = False
    column: str | None = None
    offline: bool = False
    tell: Callable[[str], None] = lambda _: None
    custom_ids: dict[str, tuple[str, int]] = field(default_factory=dict, repr=False, compare=False)


def scan(sources: Sequence[str], names: BinaryIO | None = None, options: ScanOptions | None = None) -> Iterator[Item]:
    """Find the items of all sources, each id once: source after source, within each in order of name.

    Args:
        sources: folders, patterns, files, addresses; a `.parquet`, `.tar`, `.tar.gz` or `.jsonl` holds many items.
        names: a stream of paths, one a line, or ended by NULs as `find -print0` has them; taken as they come.
        options: how folders are searched.

    Raises:
        DsvlError: a source does not exist, or holds nothing that could be read. Those that can be told apart at once
            are told by this call, the others when it is their turn.
    """
    options = options or ScanOptions()
    found = [_open_source(source, options) for source in sources]
    if names is not None:
        found.append(_listed(names, options))
    return _each_once(chain.from_iterable(found))


def name_key(path: str) -> str:
    """Make a sorting key of a path: folder by folder, numbers by their value (2 before 10)."""
    return re.sub("[0-9]+", _number_key, path.replace(os.sep, "\0")) + "\0\0" + path


def _number_key(match: re.Match[str]) -> str:
    digits = match.group().lstrip("0")
    return f"{len(digits):03d}{digits}"


def _each_once(items: Iterable[Item]) -> Iterator[Item]:
    seen = set()
    for item in items:
        if item.id not in seen:
            seen.add(item.id)
            yield item


def _open_source(source: str, options: ScanOptions) -> Iterator[Item]:
    if source == "-":
        raise UsageError("- is no source", "names on stdin are read by --files-from -")
    if is_address(source):
        return iter([_address_item(source, options)])
    if os.path.isdir(source):
        return _search_folder(_tidy(source), options)
    if os.path.lexists(source):
        return _open_file(_tidy(source), options)
    if glob.has_magic(source):
        return _match(source, options)
    raise DsvlError(f"{source}: no such file or folder")


def _open_file(path: str, options: ScanOptions) -> Iterator[Item]:
    kind = Path(path).suffix.lower()
    if kind == ".parquet":
        from dsvl_cli.batch.sources.parquet import scan_parquet

        return scan_parquet(path, options.column)
    if path.lower().endswith(_TARS):
        from dsvl_cli.batch.sources.webdataset import scan_tar

        return scan_tar(path)
    if kind == ".jsonl":
        from dsvl_cli.batch.sources.requests import scan_requests

        return scan_requests(path, offline=options.offline, found=options.custom_ids)
    return iter([_file_item(path)])


def _file_item(path: str, root: str = "") -> Item:
    return Item(path, path, partial(_read, path), root=root)


def _read(path: str) -> Sequence[bytes]:
    return (read_file(Path(path), path),)


def _address_item(address: str, options: ScanOptions) -> Item:
    return Item(address, address, partial(_fetch, address, options.offline))


def _fetch(address: str, offline: bool) -> Sequence[bytes]:
    from dsvl_cli.engine.pictures.fetch import fetch_picture

    return (fetch_picture(address, offline=offline)[0],)


def _tidy(path: str) -> str:
    """Drop what does not change where a path leads, so that `./a` and `a` are one item."""
    path = re.sub("/(?:\\.?/)+", "/", path) if os.sep == "/" else path
    while path.startswith("./") and len(path) > 2:
        path = path[2:]
    return path


def _search_folder(folder: str, options: ScanOptions) -> Iterator[Item]:
    folder = folder.rstrip(os.sep) or os.sep
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError as exc:
        raise DsvlError(f"{folder}: cannot be read: {exc.strerror}") from exc
    visible = [name for name in names if not name.startswith(".")]
    holders = [name for name in visible if name.lower().endswith(_HOLDERS)]
    if holders and {os.path.splitext(name)[1].lower() for name in visible}.isdisjoint(options.extensions):
        paths = sorted((_join(folder, name) for name in holders), key=name_key)
        return chain.from_iterable(_open_file(path, options) for path in paths)
    return _walk(folder, options)


def _walk(root: str, options: ScanOptions) -> Iterator[Item]:
    """Find the pictures of a folder in order of name; hidden files and folders are left out."""
    entered: set[tuple[int, int]] = set()
    levels = [iter(_list_folder(root, options, entered))]  # no recursion: folders may be nested a thousand deep
    while levels:
        path, kind = next(levels[-1], ("", ""))
        if not kind:
            levels.pop()
        elif kind == "file":
            yield _file_item(path, root)
        elif options.recursive:
            levels.append(iter(_list_folder(path, options, entered)))


def _list_folder(folder: str, options: ScanOptions, entered: set[tuple[int, int]]) -> list[tuple[str, str]]:
    """List what is to be taken or entered, in order of name, each path with `file` or `folder`."""
    try:
        if options.follow_links:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                return []
            entered.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            listed = [(entry.name, _kind(entry, options)) for entry in entries if not entry.name.startswith(".")]
    except OSError as exc:
        options.tell(f"{folder}: cannot be read: {exc.strerror}")
        return []
    kept = [(name, kind) for name, kind in listed if kind == "folder" or (kind and _is_taken(name, options))]
    kept.sort(key=lambda entry: name_key(entry[0]))
    return [(_join(folder, name), kind) for name, kind in kept]


def _kind(entry: os.DirEntry[str], options: ScanOptions) -> str:
    if entry.is_symlink() and not options.follow_links:
        return ""
    try:
        # Whatever is not a folder and has a picture's name is taken: a broken link or a pipe becomes an error row.
        return "folder" if entry.is_dir() else "file"
    except OSError:
        return "file"


def _is_taken(name: str, options: ScanOptions) -> bool:
    return os.path.splitext(name)[1].lower() in options.extensions


def _join(folder: str, name: str) -> str:
    return name if folder == os.curdir else os.path.join(folder, name)


def _match(pattern: str, options: ScanOptions) -> Iterator[Item]:
    """Find the files that match a pattern; where it leaves the extension open, only pictures."""
    extension = os.path.splitext(pattern)[1]
    is_open = not extension or glob.has_magic(extension)
    paths = [
        _tidy(path)
        for path in glob.iglob(pattern, recursive=True)
        if not os.path.isdir(path) and (not is_open or _is_taken(path, options))
    ]
    if "**" in pattern:  # it goes through links, round and round
        paths = list({os.path.realpath(path): path for path in sorted(paths, key=len, reverse=True)}.values())
    if not paths:
        raise DsvlError(f"{pattern}: no file matches this pattern")
    return chain.from_iterable(_open_file(path, options) for path in sorted(paths, key=name_key))


def _listed(names: BinaryIO, options: ScanOptions) -> Iterator[Item]:
    for name in _split_names(names):
        path = os.fsdecode(name)
        if path.endswith("\r") and not os.path.lexists(path):
            path = path[:-1]  # a list from Windows
        if path:
            yield _address_item(path, options) if is_address(path) else _file_item(_tidy(path))


def _split_names(names: BinaryIO) -> Iterator[bytes]:
    """Cut a stream into names, each given away as soon as it is whole."""
    read = getattr(names, "read1", names.read)
    held, end = b"", b""
    while chunk := read(_CHUNK_BYTES):
        held += chunk
        if not end:
            # No path holds a NUL: where one comes, it is what ends the names.
            end = b"\0" if b"\0" in held else b"\n" if b"\n" in held else b""
        if end:
            *whole, held = held.split(end)
            yield from filter(None, whole)
    if held:
        yield held

"""Finds the items of an object store: `s3://bucket/photos`, a pattern, a picture, archives and tables."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.sources.remote_files import explain, open_filesystem, read_remote
from dsvl_cli.engine.pictures.access import shown_address
from dsvl_cli.errors import DsvlError, UsageError

# How a name is judged: below the folder that was given, as a picture or as a file that holds some.
Takes = Callable[[str], bool]


def scan_remote(
    source: str,
    open_holder: Callable[[str], Iterator[Item] | None],
    *,
    recursive: bool,
    key: Callable[[str], str],
    is_picture: Takes,
    is_holder: Takes,
    is_wanted: Takes,
) -> Iterator[Item]:
    """Find the items of an address, sorted by name; ids are addresses, or `ARCHIVE::MEMBER` and `TABLE::ROW`.

    Args:
        source: the address of a folder, a file, or a pattern.
        open_holder: yields the items of an archive or a table; returns None for another file.
        recursive: search subfolders.
        key: sorts names.
        is_picture: whether a name is that of a picture.
        is_holder: whether it is that of a file that holds some.
        is_wanted: whether to take a name below the folder.

    Raises:
        DsvlError: there is no such thing, or it cannot be listed. Raised by this call where possible.
    """
    filesystem, path = open_filesystem(source)
    scheme = source.strip().partition("://")[0].lower()
    shown = shown_address(source)

    def address(inside: str) -> str:
        return f"{scheme}://{inside.lstrip('/')}"

    def list_folder(folder: str) -> list[dict[str, Any]]:
        try:
            return sorted(filesystem.ls(folder, detail=True), key=lambda info: key(info["name"]))
        except Exception as exc:
            raise DsvlError(f"{address(folder)}: cannot be listed: {explain(exc)}") from exc

    def open_file(inside: str) -> Iterator[Item]:
        name = address(inside)
        if name.lower().endswith(".jsonl"):
            raise UsageError(f"{shown_address(name)}: requests are read from this machine's disk only")
        return open_holder(name) or iter((Item(name, shown_address(name), lambda: (read_remote(name),)),))

    def walk(folder: str, root: str) -> Iterator[Item]:
        infos = [info for info in list_folder(folder) if info["name"].rstrip("/") != folder.rstrip("/")]
        files = [info["name"] for info in infos if info["type"] == "file"]
        pictures = [name for name in files if is_picture(name)]
        taken = pictures or (files if folder == root else [])
        for info in infos:
            name = info["name"].rstrip("/")
            if not is_wanted(name[len(root.rstrip("/")) + 1 :]):
                continue
            if info["type"] == "directory":
                if recursive:
                    yield from walk(name, root)
            elif is_picture(name) or (not pictures and name in taken and is_holder(name)):
                yield from open_file(name)

    if glob.has_magic(path):
        try:
            found = sorted(filesystem.glob(path), key=key)
        except Exception as exc:
            raise DsvlError(f"{shown}: cannot be listed: {explain(exc)}") from exc
        root = "/".join(takewhile(lambda part: not glob.has_magic(part), path.split("/")))
        chosen = [name for name in found if is_picture(name) or is_holder(name)]
        chosen = [name for name in chosen if is_wanted(name[len(root) + 1 :])]
        if not chosen:
            raise DsvlError(f"{shown}: no file matches this pattern")
        return (item for name in chosen for item in open_file(name))
    try:
        info = filesystem.info(path)
    except FileNotFoundError as exc:
        raise DsvlError(f"{shown}: no such file or folder") from exc
    except Exception as exc:
        raise DsvlError(f"{shown}: cannot be read: {explain(exc)}") from exc
    return open_file(path) if info["type"] == "file" else walk(path, path)

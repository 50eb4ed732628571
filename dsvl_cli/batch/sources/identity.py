"""Recognizes a picture however its path is spelled: `photos`, `./photos`, an absolute path, a link to the folder."""

from __future__ import annotations

import os
from functools import lru_cache

from dsvl_cli.engine.pictures.images import is_path


def canonical(path: str, base: str) -> str:
    """Return the one spelling of an id that is a path: relative to `base` if it is in there, else absolute.

    Links to folders are resolved, those to files are not: a picture may well have two names in two folders.

    Args:
        path: a path, `HOLDER::PLACE` with the path of an archive or table, or a URL, which is returned unchanged.
        base: the real path of the folder that `path` is relative to.
    """
    if not is_path(path):
        return path
    holder, mark, place = path.partition("::")
    if mark and _is_file(os.path.join(base, holder)):
        return _real(holder, base) + mark + place
    return _real(path, base)


def _real(path: str, base: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(_real_folder(folder, base), name)


@lru_cache(maxsize=4096)
def _real_folder(folder: str, base: str) -> str:
    try:
        real = os.path.realpath(os.path.join(base, folder))
        inside = os.path.relpath(real, base)
    except ValueError:  # a NUL in the path, or another drive
        return os.path.join(base, folder)
    if inside == os.curdir:
        return ""
    return real if inside == os.pardir or inside.startswith(os.pardir + os.sep) else inside


@lru_cache(maxsize=4096)
def _is_file(path: str) -> bool:
    return os.path.isfile(path)

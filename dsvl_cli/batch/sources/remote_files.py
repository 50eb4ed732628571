"""Files in object stores: `s3://bucket/a.png`, `gs://`, `hf://`.

fsspec opens them; its packages for the single services are the users' own installs. Imports no torch, and fsspec only
when an address is opened.
"""

from __future__ import annotations

import re
from typing import Any, BinaryIO, cast

from dsvl_cli.engine.pictures.access import is_url, shown_address
from dsvl_cli.engine.pictures.addresses import is_file_address
from dsvl_cli.engine.pictures.images import MAX_BYTES, is_address
from dsvl_cli.errors import DsvlError, ImageError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_KNOWN = "use s3://, gs:// or hf://"
# By scheme, what is to be installed.
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "oci": "ocifs", "oss": "ossfs", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
# fsspec reads these too, but from this machine alone, or out of something else.
_REFUSED = frozenset(
    {"local", "memory", "data", "dir", "filecache", "blockcache", "simplecache", "cached", "zip", "tar", "libarchive"}
)


def is_remote(source: str) -> bool:
    """Whether a source is in an object store, and neither a path nor an address of http(s), file or data."""
    return is_url(source) and not is_address(source) and not is_file_address(source)


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in there.

    Raises:
        DsvlError: there is no such kind of address, or its package is not installed.
    """
    from fsspec.core import url_to_fs

    match = _SCHEME.match(address.strip())
    scheme = match[1].lower() if match else ""
    shown = shown_address(address)
    if scheme in _REFUSED or not scheme:
        raise DsvlError(f"{shown}: not the address of an object store", _KNOWN)
    options = {} if scheme == "hf" else {"use_listings_cache": False}
    try:
        filesystem, path = url_to_fs(address.strip(), **options)
    except ImportError as exc:
        package = _PACKAGES.get(scheme)
        raise DsvlError(
            f"{shown}: {scheme}:// needs {package or 'a package of fsspec'}, which is not installed",
            f"pip install {package or f'what fsspec lists for {scheme}'}, on every machine that runs dsvl",
        ) from exc
    except Exception as exc:
        raise DsvlError(f"{shown}: cannot be used: {explain(exc)}", _KNOWN) from exc
    return filesystem, str(path)


def explain(exc: BaseException) -> str:
    """Return what went wrong with an object store, in one line."""
    if isinstance(exc, FileNotFoundError):
        return "there is no such bucket, folder or file"
    if isinstance(exc, PermissionError):
        return "permission denied"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text}"[:300] if text else type(exc).__name__


def open_binary(path: str) -> BinaryIO:
    """Open a file for reading, wherever it is.

    Raises:
        OSError: it cannot be read.
        DsvlError: its file system cannot be used.
    """
    if not is_remote(path):
        return open(path, "rb")
    filesystem, inside = open_filesystem(path)
    try:
        return cast("BinaryIO", filesystem.open(inside, "rb"))
    except OSError as exc:
        raise OSError(exc.errno or 0, explain(exc)) from exc
    except Exception as exc:  # the packages have errors of their own
        raise OSError(0, explain(exc)) from exc


def read_remote(address: str) -> bytes:
    """Read a picture.

    Raises:
        ImageError: it cannot be read, or is too large.
    """
    shown = shown_address(address)
    try:
        filesystem, inside = open_filesystem(address)
        if filesystem.info(inside).get("size", 0) > MAX_BYTES:
            raise ImageError(f"{shown}: larger than the limit of {MAX_BYTES // 2**20} MiB", "make it smaller first")
        data: bytes = filesystem.cat_file(inside)
    except DsvlError as exc:
        raise exc if isinstance(exc, ImageError) else ImageError(exc.message, exc.hint) from exc
    except FileNotFoundError as exc:
        raise ImageError(f"{shown}: no such file") from exc
    except Exception as exc:
        raise ImageError(f"{shown}: cannot be read: {explain(exc)}") from exc
    return data

"""What may be read or fetched for a picture, and how addresses are shown."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace

from dsvl_cli.errors import ImageError

_URL = re.compile(r"\s*([a-z][a-z0-9+.-]*):[/\\]{2}", re.IGNORECASE)
_HOST = re.compile(r"(\[[^\[\]]*\]|[^:@\[\]]*)(:[0-9]*)?")
_INVALID = "[invalid]"
_HASH_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Access:
    """What a picture's name may lead to.

    Attributes:
        offline: no address is fetched.
        private: addresses may lead to this machine and its local network.
        outside: paths may lead out of the folder of the file that names them.
    """

    offline: bool = False
    private: bool = False
    outside: bool = False

    def as_typed(self) -> Access:
        """Return the access for a name that the user typed, who may mean any host and any file."""
        return replace(self, private=True, outside=True)


FOREIGN = Access()  # of names in files, unless the user allows more


def shown_address(address: str) -> str:
    """Return a URL without user name, password, query and fragment, and anything but a URL unchanged.

    Whatever shows, logs or stores an address does so in this form: passwords and tokens are in the rest.
    """
    head = _URL.match(address)
    if head is None:
        return address
    rest = re.split(r"[?#]", address[head.end() :], maxsplit=1)[0]
    end = len(rest.partition("/")[0])
    host = rest[:end].rpartition("@")[2]
    # A password with an unescaped `/` or `?` looks like a port that is not a number.
    return head.group().strip() + (host + rest[end:] if host and _HOST.fullmatch(host) else _INVALID)


def is_url(source: str) -> bool:
    """Whether a source looks like a URL of any kind; only those of http and https are fetched."""
    return _URL.match(source) is not None


def address_id(address: str) -> str:
    """Return what identifies an address in stored rows: its shown form, with a hash of its query if it has one."""
    shown = shown_address(address)
    hidden = address if shown.endswith(_INVALID) else address.partition("#")[0].partition("?")[2]
    if shown == address or not hidden:
        return shown
    return f"{shown}#{hashlib.sha256(hidden.encode('utf-8', 'surrogatepass')).hexdigest()[:_HASH_DIGITS]}"


def check_inside(path: str, folder: str, access: Access) -> None:
    """Check that a path named by a file stays in the file's own folder, links included.

    Args:
        path: absolute, or relative to the current folder.
        folder: the folder of the file that names it.
        access: whether the path may lead elsewhere.

    Raises:
        ImageError: it leads out of the folder.
    """
    if access.outside:
        return
    try:
        # By its text first: looking at a path such as \\host\share would already connect.
        inside = all(
            os.path.commonpath([real(path), real(folder)]) == real(folder)
            for real in (os.path.abspath, os.path.realpath)
        )
    except ValueError:  # another drive, or not a path
        inside = False
    if not inside:
        raise ImageError(f"{path}: outside the folder of the file that names it; --allow-outside-paths reads it")

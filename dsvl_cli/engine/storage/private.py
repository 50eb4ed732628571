"""Whether only this user can change what is at a path, and folders that are made so.

Code, weights and answers are taken from the cache folder only if nobody else can have put them there: every folder on
the way to a file, and the file, belongs to this user or to root, and lets no other user write. Folders with the sticky
bit, such as `/tmp`, let others add files but not replace mine. Windows keeps a user's folders from others by itself.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_ANYONE = stat.S_IWGRP | stat.S_IWOTH


def find_intruder(path: Path) -> str | None:
    """Return why another user could change a file or folder, or what is on the way to it; None if nobody can.

    What does not exist yet is created by this user, and is no reason.
    """
    if not hasattr(os, "geteuid"):
        return None
    # The links on the way, and where they lead.
    for end in dict.fromkeys((Path(os.path.abspath(path)), Path(os.path.realpath(path)))):
        for place in (*reversed(end.parents), end):
            try:
                status = os.lstat(place)
            except OSError:
                break
            if status.st_uid not in (0, os.geteuid()):
                return f"{place} belongs to another user"
            if not stat.S_ISLNK(status.st_mode) and _is_open(status):
                return f"other users can write to {place}"
    return None


def is_private_file(path: Path) -> bool:
    """Whether a path is a regular file, not a link, that no other user can have written."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and find_intruder(path) is None


def make_private_folder(folder: Path) -> None:
    """Create a folder and its parents for this user alone, whatever the umask is; existing ones are not changed."""
    for place in (*reversed(folder.parents), folder):
        if not place.is_dir():
            place.mkdir(mode=0o700, exist_ok=True)


def _is_open(status: os.stat_result) -> bool:
    writers = status.st_mode & _ANYONE
    if not writers or (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        return False
    return bool(writers & stat.S_IWOTH) or not _is_own_group(status.st_gid)


def _is_own_group(gid: int) -> bool:
    """Whether a group is a user's own, as systems with a umask of 002 make them: of the same name, without others."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}

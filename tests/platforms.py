"""Other platforms' folders, as platformdirs finds them there."""

from __future__ import annotations

import os
from collections.abc import Mapping

import platformdirs
import pytest
from platformdirs import macos, unix, windows

_CLASSES = {"linux": unix.Unix, "darwin": macos.MacOS, "win32": windows.Windows}
_READ = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "APPDATA", "LOCALAPPDATA")


def pretend(monkeypatch: pytest.MonkeyPatch, platform: str, variables: Mapping[str, str]) -> None:
    """Let platformdirs find what it finds on a platform with these variables.

    Windows' shell, which only that system has, is replaced: here it answers what it has put into `APPDATA` and
    `LOCALAPPDATA`, and where they are not set, what they are by default.
    """
    for name in _READ:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(platformdirs, "PlatformDirs", _CLASSES[platform])
    monkeypatch.setattr(windows, "get_win_folder", _ask_shell)


def _ask_shell(name: str) -> str:
    variable, folder = {"CSIDL_APPDATA": ("APPDATA", "Roaming"), "CSIDL_LOCAL_APPDATA": ("LOCALAPPDATA", "Local")}[name]
    return os.environ.get(variable) or os.path.join(os.environ["HOME"], "AppData", folder)

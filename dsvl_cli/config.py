"""Settings in files: the user's `config.toml`, and `.dsvl.toml` in the current folder.

A setting has the name of its option, with underscores. `config.toml`, in the folder of `config_folder`:

    [loading]           # model, revision, offline, device, dtype, attn_implementation, device_map, threads,
    model = "work"      # quantization, group_size, cache
    [prompts]           # prompt, system
    [sampling]          # max_new_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed, stop
    temperature = 0.2
    [output]            # no_stream, stats, plain, quiet, verbose
    [chat]              # no_save, overflow

    [profiles.fast]     # any of the settings above, for --profile fast
    model = "tiny"
    max_new_tokens = 64

    [aliases]           # names for --model: a hub id, or the full path of a folder
    work = "~/models/deepseek-vl-7b"

`.dsvl.toml` has only `[prompts]`, `[sampling]` and `[output]`: it may come with someone else's pictures, and must not
choose the model or the code that runs.

Precedence, highest first: the option, `DSVL_<NAME>` in the environment, `.dsvl.toml`, the profile, `config.toml`, the
built-in default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsvl_cli.errors import DsvlError, UsageError
from dsvl_cli.settings import ALL_SETTINGS, SETTINGS, Setting, find_nearest, parse_toml

FOLDER_FILE = ".dsvl.toml"
_LARGEST = 20_000  # bytes per file
_DEEP_KEY = re.compile(r"""(?m)(?:^[ \t\[]*|[{,]\s*)[\w"'-]+(?:[ \t]*\.[ \t]*[\w"'-]+){20}""")
_MOST_WORK = 20_000  # lines to parse in search of a key
_TABLE_OF = {name: table for table, settings in SETTINGS.items() for name in settings}
_FOLDER_TABLES = ("prompts", "sampling", "output")
_USER_TABLES = (*SETTINGS, "profiles", "aliases")


class _NoHome(DsvlError):
    """The user has no home folder, as in some containers."""


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value and where it is set; `profile` is the profile it belongs to, or ""."""

    value: Any
    file: _File
    key: tuple[str, ...]
    profile: str = ""

    @property
    def place(self) -> str:
        """The file, line and profile where it is set."""
        profile = f" (profile {self.profile})" if self.profile else ""
        return f"{self.file.path}:{self.file.line_of(self.key)}{profile}"

    @property
    def is_of_folder(self) -> bool:
        """Whether it is set by `.dsvl.toml`."""
        return self.file.path.name == FOLDER_FILE


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration read from the files.

    Attributes:
        values: the effective value of each setting that is set, by the setting's name.
        aliases: models by their aliases.
        profiles: the names of all profiles.
        files: the files that were read.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def resolve_model(self, name: str) -> str:
        """Return what an alias stands for, or any other name unchanged. Aliases are case-insensitive."""
        return self.aliases.get(name.lower(), name)


def config_folder(variables: Mapping[str, str]) -> Path:
    """Return the folder of `config.toml`: DSVL_CONFIG_DIR, else the platform's folder for user configuration.

    `XDG_CONFIG_HOME` is respected on every platform; a relative path in it is ignored, as its specification requires.

    Args:
        variables: the environment; the platform's folder always comes from the process's own environment.

    Raises:
        DsvlError: the user has no home folder.
    """
    if own := variables.get("DSVL_CONFIG_DIR"):
        return Path(own).expanduser()
    xdg = Path(variables.get("XDG_CONFIG_HOME", ""))
    if xdg.is_absolute():  # platformdirs ignores it on Windows
        return xdg / "dsvl"
    from platformdirs import user_config_path

    try:
        return user_config_path("dsvl", appauthor=False, roaming=True)
    except RuntimeError as exc:
        raise _NoHome("there is no home folder for config.toml", "set HOME or DSVL_CONFIG_DIR") from exc


def read_config(variables: Mapping[str, str], profile: str | None = None, folder: Path | None = None) -> Config:
    """Read the user's `config.toml` and the folder's `.dsvl.toml`, where they exist.

    Args:
        variables: the environment, which says where `config.toml` is.
        profile: the name of the profile to use.
        folder: the folder of `.dsvl.toml`; the current one by default.

    Raises:
        DsvlError: a file cannot be read, is not TOML, or has a wrong key or value; names the file and line.
        UsageError: there is no such profile.
    """
    try:
        user = _File.read(config_folder(variables) / "config.toml")
    except _NoHome:
        user = None
    own = _File.read((folder or Path()) / FOLDER_FILE)
    values: dict[str, Value] = {}
    profiles: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    if user is not None:
        user.check_tables(_USER_TABLES)
        values |= user.values_of_tables(tuple(SETTINGS))
        profiles = user.check_profiles()
        aliases = user.check_aliases()
    if profile is not None:
        if user is None or profile not in profiles:
            way = f"add a table [profiles.{profile}] to {config_folder(variables) / 'config.toml'}"
            raise UsageError(f"there is no profile {profile!r}", _suggest(profile, profiles) if profiles else way)
        values |= user.values_of(("profiles", profile), profile)
    if own is not None:
        own.check_folder()
        values |= own.values_of_tables(_FOLDER_TABLES)
    return Config(values, aliases, tuple(profiles), tuple(file.path for file in (user, own) if file is not None))


@dataclass(frozen=True, slots=True)
class _File:
    """One parsed file."""

    path: Path
    text: str
    root: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> _File | None:
        """Read and parse a file; None if there is none."""
        if not path.is_file():
            return None
        import tomllib

        try:
            with path.open("rb") as stream:
                data = stream.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise DsvlError(f"{path} is larger than {_LARGEST:,} bytes", "shorten it")
            text = data.decode("utf-8-sig")
            if _DEEP_KEY.search(text):  # of which the parser takes quadratic time
                raise RecursionError
            return cls(path, text, tomllib.loads(text))
        except OSError as exc:
            raise DsvlError(f"{path} cannot be read: {exc.strerror}", "check its permissions") from exc
        except UnicodeDecodeError as exc:
            line = data[: exc.start].count(b"\n") + 1
            raise DsvlError(f"{path}:{line}: not UTF-8", "save the file as UTF-8") from exc
        except RecursionError as exc:
            raise DsvlError(f"{path} is nested too deeply", "settings need at most two levels") from exc
        except ValueError as exc:  # invalid TOML, or a number too long for Python to parse
            raise _not_toml(path, str(exc), text.count("\n") + 1) from exc

    def check_tables(self, allowed: tuple[str, ...]) -> None:
        """Reject anything at the top level but known tables."""
        for key, value in self.root.items():
            if key in _TABLE_OF:
                raise self.error((key,), f"{key} is not in a table", f"move it below a line [{_TABLE_OF[key]}]")
            if key not in allowed:
                raise self.error((key,), f"there is no table [{key}]", _suggest(key, allowed))
            self._check_is_table((key,), value)

    def check_folder(self) -> None:
        """Reject what a folder's file must not set, with the reason."""
        forbidden = {*_USER_TABLES, *SETTINGS["loading"]}.difference(_FOLDER_TABLES)
        for key, value in self.root.items():
            paths = [(key,), *((key, name) for name in value)] if isinstance(value, dict) else [(key,)]
            for path in paths:
                if path[-1] in forbidden:
                    reason = "a file that comes with a folder must not choose the model or the code that runs"
                    raise self.error(path, f"{path[-1]} must not be set here: {reason}", _FOLDER_HINT)
        self.check_tables(_FOLDER_TABLES)

    def check_profiles(self) -> dict[str, Any]:
        """Check and return all profiles, including unused ones."""
        profiles: dict[str, Any] = self.root.get("profiles", {})
        for name, settings in profiles.items():
            self._check_is_table(("profiles", name), settings)
            self._check_settings(("profiles", name), ALL_SETTINGS)
        return profiles

    def check_aliases(self) -> dict[str, str]:
        """Check the aliases and return them, with names in lower case."""
        aliases: dict[str, Any] = self.root.get("aliases", {})
        for name, target in aliases.items():
            if not isinstance(target, str) or not target or target.startswith("."):
                message = f"the alias {name} is {_show(target)}; it must be a hub id or the full path of a folder"
                raise self.error(("aliases", name), message, "put a name with a dot in quotes")
        return {name.lower(): target for name, target in aliases.items()}

    def values_of_tables(self, tables: tuple[str, ...]) -> dict[str, Value]:
        """Check top-level tables and return their values."""
        values: dict[str, Value] = {}
        for table in filter(self.root.__contains__, tables):
            self._check_settings((table,), SETTINGS[table])
            values |= self.values_of((table,))
        return values

    def values_of(self, path: tuple[str, ...], profile: str = "") -> dict[str, Value]:
        """Return the values of a table that has been checked."""
        return {name: Value(value, self, (*path, name), profile) for name, value in self._table(path).items()}

    def _table(self, path: tuple[str, ...]) -> dict[str, Any]:
        table = self.root
        for key in path:
            table = table[key]
        return table

    def _check_is_table(self, path: tuple[str, ...], value: object) -> None:
        if not isinstance(value, dict):
            name = ".".join(path)
            raise self.error(path, f"{name} is {_show(value)}; it must be a table", f"start it with a line [{name}]")

    def _check_settings(self, path: tuple[str, ...], settings: Mapping[str, Setting]) -> None:
        for name, value in self._table(path).items():
            place = (*path, name)
            if name not in settings:
                raise self.error(place, f"there is no setting {name} in [{'.'.join(path)}]", _place(name, settings))
            if not settings[name].accepts(value):
                near = settings[name].nearest(value)
                hint = None if near is None else f"did you mean {name} = {_show(near)}?"
                raise self.error(place, f"{name} is {_show(value)}; it must be {settings[name].words}", hint)

    def error(self, path: tuple[str, ...], message: str, hint: str | None) -> DsvlError:
        """Return an error with the file and line of a key."""
        return DsvlError(f"{self.path}:{self.line_of(path)}: {message}", hint)

    def line_of(self, path: tuple[str, ...]) -> int:
        """Find the line of a key, counted from 1.

        tomllib does not report it. It is the first line such that the text up to it, extended until it parses as TOML,
        has the key.
        """
        lines = self.text.split("\n")
        end, work = 0, 0
        while end < len(lines):
            start, end = end, end + 1
            if path[-1] not in lines[start]:
                continue
            # Within a long string, the rest of the file may have to be parsed at every line.
            work += end
            while (parsed := parse_toml("\n".join([*lines[:end], ""]))) is None and end < len(lines):
                end += 1
                work += end
                if work > _MOST_WORK:
                    break
            if work > _MOST_WORK:
                return 1
            if _has(parsed, path):
                return start + 1
        return 1  # the key is written with escapes


_FOLDER_HINT = f"{FOLDER_FILE} may only have {', '.join(f'[{table}]' for table in _FOLDER_TABLES)}"


def _not_toml(path: Path, text: str, last_line: int) -> DsvlError:
    place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", text)
    where = "" if place is None else f":{place[1]}:{place[2]}" if place[1] else f":{last_line}"
    reason = text[: place.start()] if place else text
    return DsvlError(f"{path}{where}: not TOML: {reason}", 'a setting looks like this: model = "tiny"')


def _has(table: Any, path: Sequence[str]) -> bool:
    return not path or (isinstance(table, dict) and path[0] in table and _has(table[path[0]], path[1:]))


def _place(name: str, settings: Mapping[str, Setting]) -> str:
    """Return a hint: the table a setting belongs in, or a similar name."""
    if name in SETTINGS:
        return "put settings right below the table's own line, not in a subtable"
    return f"{name} belongs in [{_TABLE_OF[name]}]" if name in _TABLE_OF else _suggest(name, settings)


def _suggest(name: str, names: Iterable[str]) -> str:
    near = find_nearest(name, names)
    return f"did you mean {near}?" if near else f"choose from {', '.join(names)}"


def _show(value: object) -> str:
    """Format a value as in TOML, shortened to one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."

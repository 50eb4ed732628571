"""Settings in files: the user's `config.toml`, and `.dsvl.toml` in the current folder.

A setting has the name of its option, with underscores, and is at the top of a file, in the table of its kind, or in the
table of a command, for which alone it counts then. `config.toml`, in the folder of `config_folder`:

    temperature = 0.2   # above the first table, or in the table of its kind:
    [loading]           # model, revision, offline, device, dtype, attn_implementation, device_map, threads,
    model = "work"      # quantization, group_size, cache
    [prompts]           # prompt, system
    [sampling]          # max_new_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed, stop, samples
    [output]            # no_stream, stats, plain, quiet, verbose
    [chat]              # no_save, overflow
    [describe]          # any of them, for `dsvl describe` alone; also [chat], [batch] and [quantize]

    [profiles.fast]     # the same, for --profile fast: settings, or tables such as [profiles.fast.chat]
    model = "tiny"
    max_new_tokens = 64

    [aliases]           # names for --model: a hub id, or the full path of a folder
    work = "~/models/deepseek-vl-7b"

`.dsvl.toml` has only the settings of `[prompts]`, `[sampling]` and `[output]`: it may come with someone else's
pictures, and must not choose the model or the code that runs.

Precedence, highest first: the option, `DSVL_<NAME>` in the environment, `.dsvl.toml`, the profile, `config.toml`, the
built-in default; within one of them, a command's table before the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsvl_cli.engine.encodings import decode_text
from dsvl_cli.errors import DsvlError, SettingError, UsageError
from dsvl_cli.settings import ALL_SETTINGS, SETTINGS, find_nearest, parse_toml

FOLDER_FILE = ".dsvl.toml"
# Variables that are not settings.
OWN_VARIABLES = (
    "DSVL_PROFILE", "DSVL_DEBUG", "DSVL_CONFIG_DIR", "DSVL_DATA_DIR", "DSVL_CACHE_DIR", "DSVL_NATIVE",
    "DSVL_KERNEL_FLAGS",
)  # fmt: skip
_LARGEST = 20_000  # bytes per file
_DEEP_KEY = re.compile(r"""(?m)(?:^[ \t\[]*|[{,]\s*)[\w"'-]+(?:[ \t]*\.[ \t]*[\w"'-]+){20}""")
_MOST_WORK = 20_000  # lines to parse in search of a key
_TABLE_OF = {name: table for table, settings in SETTINGS.items() for name in settings}
COMMANDS = ("chat", "describe", "batch", "quantize")  # those that have settings, and may have a table of their own
_FOLDER_TABLES = ("prompts", "sampling", "output")
_FOLDER_SETTINGS = frozenset(name for table in _FOLDER_TABLES for name in SETTINGS[table])
_OTHER_TABLES = ("profiles", "aliases")


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


def find_unknown_variables(variables: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables called `DSVL_...` that mean nothing to dsvl, each with the name that was probably meant."""
    import difflib

    known = [*OWN_VARIABLES, *(f"DSVL_{name.upper()}" for name in ALL_SETTINGS if name != "stop")]
    unknown = [name for name, value in variables.items() if name.startswith("DSVL_") and value and name not in known]
    return {name: next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), None) for name in unknown}


def read_config(
    variables: Mapping[str, str], profile: str | None = None, folder: Path | None = None, command: str | None = None
) -> Config:
    """Read the user's `config.toml` and the folder's `.dsvl.toml`, where they exist.

    Args:
        variables: the environment, which says where `config.toml` is.
        profile: the name of the profile to use.
        folder: the folder of `.dsvl.toml`; the current one by default.
        command: the command whose tables count too, one of `COMMANDS`.

    Raises:
        UsageError: a file is not TOML, or has a wrong key or value, with its line; or there is no such profile.
        DsvlError: a file cannot be read.
    """
    try:
        user = _File.read(config_folder(variables) / "config.toml")
    except _NoHome:
        user = None
    own = _File.read((folder or Path()) / FOLDER_FILE)
    layers: list[_Settings] = []
    profiles: dict[str, _Settings] = {}
    aliases: dict[str, str] = {}
    if user is not None:
        layers.append(user.check_settings((), ALL_SETTINGS, _OTHER_TABLES))
        profiles = user.check_profiles()
        aliases = user.check_aliases()
    if profile is not None:
        if profile not in profiles:
            way = f"add a table [profiles.{profile}] to {config_folder(variables) / 'config.toml'}"
            hint = _suggest(profile, profiles) if profiles else way
            raise SettingError("profile", profile, f"there is no profile {profile!r}", hint, is_whole=True)
        layers.append(profiles[profile])
    if own is not None:
        own.check_folder()
        layers.append(own.check_settings((), _FOLDER_SETTINGS, ()))
    values: dict[str, Value] = {}
    for layer in layers:
        values |= layer.general | layer.of_commands.get(command or "", {})
    return Config(values, aliases, tuple(profiles), tuple(file.path for file in (user, own) if file is not None))


@dataclass(frozen=True, slots=True)
class _Settings:
    """The settings of a file or profile: those of all commands, and those in the tables of single ones."""

    general: dict[str, Value] = field(default_factory=dict)
    of_commands: dict[str, dict[str, Value]] = field(default_factory=dict)


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
            try:
                text = decode_text(data, str(path))
            except DsvlError as exc:
                raise UsageError(str(exc), exc.hint) from exc
            if _DEEP_KEY.search(text):  # of which the parser takes quadratic time
                raise RecursionError
            return cls(path, text, tomllib.loads(text))
        except OSError as exc:
            raise DsvlError(f"{path} cannot be read: {exc.strerror}", "check its permissions") from exc
        except RecursionError as exc:
            raise DsvlError(f"{path} is nested too deeply", "settings need at most two levels") from exc
        except ValueError as exc:  # invalid TOML, or a number too long for Python to parse
            raise _not_toml(path, str(exc), text.count("\n") + 1) from exc

    def check_folder(self) -> None:
        """Reject what a folder's file must not set, with the reason."""
        forbidden = {"loading", *_OTHER_TABLES, *ALL_SETTINGS}.difference(_FOLDER_SETTINGS)
        for key, value in self.root.items():
            paths = [(key,), *((key, name) for name in value)] if isinstance(value, dict) else [(key,)]
            for path in paths:
                if path[-1] in forbidden:
                    reason = "a file that comes with a folder must not choose the model or the code that runs"
                    raise self.error(path, f"{path[-1]} must not be set here: {reason}", _FOLDER_HINT)

    def check_profiles(self) -> dict[str, _Settings]:
        """Check and return all profiles, including unused ones."""
        profiles: Any = self.root.get("profiles", {})
        self._check_is_table(("profiles",), profiles)
        for name, settings in profiles.items():
            self._check_is_table(("profiles", name), settings)
        return {name: self.check_settings(("profiles", name), ALL_SETTINGS, (), name) for name in profiles}

    def check_aliases(self) -> dict[str, str]:
        """Check the aliases and return them, with names in lower case."""
        aliases: Any = self.root.get("aliases", {})
        self._check_is_table(("aliases",), aliases)
        for name, target in aliases.items():
            if not isinstance(target, str) or not target or target.startswith("."):
                message = f"the alias {name} is {_show(target)}; it must be a hub id or the full path of a folder"
                raise self.error(("aliases", name), message, "put a name with a dot in quotes")
        return {name.lower(): target for name, target in aliases.items()}

    def check_settings(
        self, path: tuple[str, ...], allowed: Collection[str], others: tuple[str, ...], profile: str = ""
    ) -> _Settings:
        """Check the settings of the whole file or of a profile, and return them.

        Args:
            path: the profile's table; () for the file.
            allowed: the settings that may be set.
            others: tables that are checked elsewhere.
            profile: the profile's name.
        """
        found = _Settings()
        tables = [name for name in SETTINGS if name not in COMMANDS and any(each in allowed for each in SETTINGS[name])]
        for key, value in self._table(path).items():
            place = (*path, key)
            if key in ALL_SETTINGS:
                self._add(found.general, place, allowed, profile)
            elif key in (*tables, *COMMANDS):
                self._check_is_table(place, value)
                for name in value:
                    names = SETTINGS[key] if key in tables else _settings_of_command(key, allowed)
                    is_general = key in tables or name in SETTINGS.get(key, ())
                    values = found.general if is_general else found.of_commands.setdefault(key, {})
                    self._add(values, (*place, name), names, profile)
            elif key not in others:
                what = f"table [{'.'.join(place)}]" if isinstance(value, dict) else f"setting {key}"
                raise self.error(place, f"there is no {what}", _suggest_key(key, value, [*tables, *COMMANDS, *others]))
        return found

    def _add(self, values: dict[str, Value], path: tuple[str, ...], allowed: Collection[str], profile: str) -> None:
        """Check a setting and add it to the values."""
        *table, name = path
        if name not in allowed:
            where = f" in [{'.'.join(table)}]" if table else ""
            raise self.error(path, f"there is no setting {name}{where}", _place(name, allowed, path))
        value = self._table(path)
        if not ALL_SETTINGS[name].accepts(value):
            near = ALL_SETTINGS[name].nearest(value)
            hint = None if near is None else f"did you mean {name} = {_show(near)}?"
            raise self.error(path, f"{name} is {_show(value)}; it must be {ALL_SETTINGS[name].words}", hint)
        if name in values:
            first = self.line_of(values[name].key)
            raise self.error(path, f"{name} is set twice, here and in line {first}", "remove one of them")
        values[name] = Value(value, self, path, profile)

    def _table(self, path: tuple[str, ...]) -> Any:
        table: Any = self.root
        for key in path:
            table = table[key]
        return table

    def _check_is_table(self, path: tuple[str, ...], value: object) -> None:
        if not isinstance(value, dict):
            name = ".".join(path)
            raise self.error(path, f"{name} is {_show(value)}; it must be a table", f"start it with a line [{name}]")

    def error(self, path: tuple[str, ...], message: str, hint: str | None) -> UsageError:
        """Return an error with the file and line of a key."""
        return UsageError(f"{self.path}:{self.line_of(path)}: {message}", hint)

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


_FOLDER_HINT = f"{FOLDER_FILE} may only have the settings of {', '.join(f'[{table}]' for table in _FOLDER_TABLES)}"


def _settings_of_command(command: str, allowed: Collection[str]) -> Collection[str]:
    """Return the settings that a command's own table may have."""
    foreign = {name for other in COMMANDS if other != command for name in SETTINGS.get(other, ())}
    return frozenset(allowed) - foreign


def _not_toml(path: Path, text: str, last_line: int) -> UsageError:
    place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", text)
    where = "" if place is None else f":{place[1]}:{place[2]}" if place[1] else f":{last_line}"
    reason = text[: place.start()] if place else text
    return UsageError(f"{path}{where}: not TOML: {reason}", 'a setting looks like this: model = "tiny"')


def _has(table: Any, path: Sequence[str]) -> bool:
    return not path or (isinstance(table, dict) and path[0] in table and _has(table[path[0]], path[1:]))


def _place(name: str, allowed: Collection[str], path: tuple[str, ...]) -> str:
    """Return a hint: the table that a setting of this path belongs in, or a similar name."""
    if name in SETTINGS:
        return "put settings right below the table's own line, not in a subtable"
    if name in _TABLE_OF:
        profile = ".".join(path[:2]) + "." if path[0] == "profiles" else ""
        return f"{name} belongs in [{profile}{_TABLE_OF[name]}]"
    return _suggest(name, [known for known in ALL_SETTINGS if known in allowed])


def _suggest_key(key: str, value: object, tables: Sequence[str]) -> str:
    """Return a hint for a key that is neither a setting nor a table."""
    first, second = (tables, ALL_SETTINGS) if isinstance(value, dict) else (ALL_SETTINGS, tables)
    near = find_nearest(key, first) or find_nearest(key, second)
    return f"did you mean {near}?" if near else "dsvl config example lists the settings and tables"


def _suggest(name: str, names: Iterable[str]) -> str:
    near = find_nearest(name, names)
    return f"did you mean {near}?" if near else f"choose from {', '.join(names)}"


def _show(value: object) -> str:
    """Format a value as in TOML, shortened to one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."

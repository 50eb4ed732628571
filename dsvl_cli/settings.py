"""The settings and their valid values; `config` reads them from files.

Defaults, choices and bounds are in `engine/options.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dsvl_cli.engine.options import RULES, Rule

_KIND_WORDS = {bool: "true or false", str: "a string"}


@dataclass(frozen=True, slots=True)
class Setting:
    """The valid values of a setting.

    Attributes:
        kind: its type; a `float` may be written as an integer, a `list` is a list of strings.
        rule: a further constraint, or None if every value of the type is valid.
    """

    kind: type
    rule: Rule | None = None

    @property
    def words(self) -> str:
        """A description of valid values."""
        return _KIND_WORDS[self.kind] if self.rule is None else str(self.rule)

    @property
    def offered(self) -> tuple[Any, ...]:
        """Valid values to suggest the nearest of in place of a wrong one."""
        return () if self.rule is None else self.rule.offered

    def accepts(self, value: Any) -> bool:
        """Return whether a value parsed from TOML is valid."""
        kinds = (int, float) if self.kind is float else (self.kind,)
        return type(value) in kinds and (self.rule is None or self.rule.holds(value))

    def nearest(self, value: object) -> Any:
        """Return the valid value nearest to a wrong one, or None."""
        if isinstance(value, str) and self.kind in (bool, int, float):
            value = (parse_toml(f"value = {value.lower()}") or {}).get("value")  # a quoted number or boolean
            if self.accepts(value):
                return value
        if self.kind in (int, float) and isinstance(value, (int, float)) and value == value:
            return min(self.offered, key=lambda offer: abs(offer - value), default=None)
        return find_nearest(str(value), self.offered) if self.kind is str else None


def _ruled(*names: str) -> dict[str, Setting]:
    return {name: Setting(RULES[name].kind, RULES[name]) for name in names}


def _free(kind: type, *names: str) -> dict[str, Setting]:
    return dict.fromkeys(names, Setting(kind))


SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "loading": {
        **_ruled("model", "revision"),
        **_free(bool, "offline"),
        **_ruled("device", "dtype", "attn_implementation", "device_map", "threads", "quantization", "group_size"),
        **_free(bool, "cache"),
    },
    "prompts": _free(str, "prompt", "system"),
    "sampling": _ruled(
        "max_new_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop", "samples"
    ),
    "output": _free(bool, "no_stream", "stats", "plain", "quiet", "verbose"),
    "chat": {**_free(bool, "no_save"), **_ruled("overflow")},
}
ALL_SETTINGS = {name: setting for table in SETTINGS.values() for name, setting in table.items()}


def parse_toml(text: str) -> dict[str, Any] | None:
    """Parse TOML; returns None if it is invalid."""
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def find_nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name most similar to a wrong one, or None."""
    import difflib

    return next(iter(difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1)), None)

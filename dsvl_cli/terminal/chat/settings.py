"""The settings that can be changed while a chat goes on: their names, how a value is typed, what they are for."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from dsvl_cli.engine.options import SamplingParams
from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Overflow = Literal["error", "drop-oldest"]
OVERFLOWS: tuple[Overflow, ...] = ("error", "drop-oldest")


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What `/set` changes.

    Attributes:
        sampling: how the answers are drawn.
        overflow: what to do when the conversation no longer fits into the context: tell it as an error, or leave the
            oldest exchanges out of what the model reads.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    overflow: Overflow = "error"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as the user sees it.

    Attributes:
        name: a field of `SamplingParams`, or `overflow`.
        parse: makes a value of what was typed; raises ValueError.
        bounds: the values it takes, in words.
        help: what it does, in a few words.
        suggestions: values offered by completion.
    """

    name: str
    parse: Callable[[str], Any]
    bounds: str
    help: str
    suggestions: tuple[str, ...] = ()


def _parse_seed(text: str) -> int | None:
    return None if text == "none" else int(text)


def _parse_stop(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(shlex.split(text))


def _parse_overflow(text: str) -> Overflow:
    for choice in OVERFLOWS:
        if text == choice:
            return choice
    raise ValueError(text)


SETTINGS = (
    Setting("max_new_tokens", int, "1 or more", "an answer's length at most", ("128", "512", "2048")),
    Setting("temperature", float, "0 to 100", "0 always takes the likeliest token", ("0", "0.2", "0.7", "1")),
    Setting("top_k", int, "0 (off) or more", "draw among the k likeliest tokens", ("0", "20", "50")),
    Setting("top_p", float, "above 0, at most 1", "draw among the likeliest that sum to p", ("0.8", "0.95", "1")),
    Setting("min_p", float, "0 to 1", "draw among those p times as likely as the likeliest", ("0", "0.05", "0.1")),
    Setting("repetition_penalty", float, "above 0", "above 1, repeated tokens get less likely", ("1", "1.1", "1.2")),
    Setting("seed", _parse_seed, "0 or more, or none", "the same seed draws the same answer", ("none", "0", "42")),
    Setting("stop", _parse_stop, "strings in quotes, or none", "the answer ends before these", ("none",)),
    Setting("overflow", _parse_overflow, " or ".join(OVERFLOWS), "what to do when the context is full", OVERFLOWS),
)


def find_setting(name: str) -> Setting:
    """Return the setting of that name; hyphens do for underscores.

    Raises:
        UsageError: there is none; the hint names the nearest.
    """
    wanted = name.lower().replace("-", "_")
    by_name = {setting.name: setting for setting in SETTINGS}
    if wanted in by_name:
        return by_name[wanted]
    near = difflib.get_close_matches(wanted, by_name, n=1)
    raise UsageError(
        f"there is no setting {name!r}", f"did you mean {near[0]}?" if near else f"there are {', '.join(by_name)}"
    )


def set_value(settings: ChatSettings, setting: Setting, text: str, defaults: ChatSettings) -> ChatSettings:
    """Return the settings with one value read from what was typed; `default` takes the one that the chat began with.

    Raises:
        UsageError: the text is no such value, or out of bounds.
    """
    if text == "default":
        value = value_of(defaults, setting)
    else:
        try:
            value = setting.parse(text)
        except ValueError as exc:
            raise UsageError(f"{setting.name} cannot be {text!r}", f"it takes {setting.bounds}") from exc
    if setting.name == "overflow":
        return replace(settings, overflow=value)
    return replace(settings, sampling=replace(settings.sampling, **{setting.name: value}))


def value_of(settings: ChatSettings, setting: Setting) -> Any:
    """Return the value of one setting."""
    return settings.overflow if setting.name == "overflow" else getattr(settings.sampling, setting.name)


def show_value(value: object) -> str:
    """Write a value the way that it is typed."""
    if value is None or value == ():
        return "none"
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def changed_settings(settings: ChatSettings) -> Iterable[tuple[str, str]]:
    """Yield names and values of what is not at the program's own defaults."""
    plain = ChatSettings()
    for setting in SETTINGS:
        value = value_of(settings, setting)
        if value != value_of(plain, setting):
            yield setting.name, show_value(value)

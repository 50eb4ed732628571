"""The settings that can be changed during a chat: their names, values and descriptions."""

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
    """The settings changed by `/set`.

    Attributes:
        sampling: how answers are sampled.
        overflow: what to do when the conversation no longer fits into the context: report an error, or leave the oldest
            exchanges out of the prompt.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    overflow: Overflow = "error"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as the user sees it.

    Attributes:
        name: a field of `SamplingParams`, or `overflow`.
        parse: converts typed text to a value; raises ValueError.
        bounds: the valid values, in words.
        help: a short description.
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
    Setting("max_new_tokens", int, "1 or more", "maximum length of an answer", ("128", "512", "2048")),
    Setting("temperature", float, "0 to 100", "0 always takes the most likely token", ("0", "0.2", "0.7", "1")),
    Setting("top_k", int, "0 (off) or more", "sample from the k most likely tokens", ("0", "20", "50")),
    Setting("top_p", float, "above 0, at most 1", "sample from the top tokens that sum to p", ("0.8", "0.95", "1")),
    Setting("min_p", float, "0 to 1", "drop tokens below p times the top one", ("0", "0.05", "0.1")),
    Setting("repetition_penalty", float, "above 0", "above 1 makes repeated tokens less likely", ("1", "1.1", "1.2")),
    Setting("seed", _parse_seed, "0 or more, or none", "the same seed gives the same answer", ("none", "0", "42")),
    Setting("stop", _parse_stop, "strings in quotes, or none", "end the answer before any of these", ("none",)),
    Setting("overflow", _parse_overflow, " or ".join(OVERFLOWS), "what to do when the context is full", OVERFLOWS),
)


def find_setting(name: str) -> Setting:
    """Return the setting with that name; hyphens count as underscores.

    Raises:
        UsageError: it does not exist; the hint suggests a similar one.
    """
    wanted = name.lower().replace("-", "_")
    by_name = {setting.name: setting for setting in SETTINGS}
    if wanted in by_name:
        return by_name[wanted]
    near = difflib.get_close_matches(wanted, by_name, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(by_name)}"
    raise UsageError(f"there is no setting {name!r}", hint)


def set_value(settings: ChatSettings, setting: Setting, text: str, defaults: ChatSettings) -> ChatSettings:
    """Return the settings with one of them set from typed text; `default` restores the chat's initial value.

    Raises:
        UsageError: the value is invalid or out of range.
    """
    if text == "default":
        value = value_of(defaults, setting)
    else:
        try:
            value = setting.parse(text)
        except ValueError as exc:
            raise UsageError(f"{setting.name} cannot be {text!r}", f"valid values: {setting.bounds}") from exc
    if setting.name == "overflow":
        return replace(settings, overflow=value)
    return replace(settings, sampling=replace(settings.sampling, **{setting.name: value}))


def value_of(settings: ChatSettings, setting: Setting) -> Any:
    """Return the value of a setting."""
    return settings.overflow if setting.name == "overflow" else getattr(settings.sampling, setting.name)


def show_value(value: object) -> str:
    """Format a value as it is typed."""
    if value is None or value == ():
        return "none"
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def changed_settings(settings: ChatSettings) -> Iterable[tuple[str, str]]:
    """Yield the names and values of settings that differ from the program's defaults."""
    plain = ChatSettings()
    for setting in SETTINGS:
        value = value_of(settings, setting)
        if value != value_of(plain, setting):
            yield setting.name, show_value(value)

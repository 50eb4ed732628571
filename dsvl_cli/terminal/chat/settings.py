"""The settings that can be changed during a chat: their syntax and their help."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

from dsvl_cli.engine.options import DEFAULT_OVERFLOW, RULES, Overflow, SamplingParams, check_value, refuse
from dsvl_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

NONE = "none"  # typed to remove an optional value


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """The settings changed by `/set`.

    Attributes:
        sampling: the sampling parameters of answers.
        overflow: what to do when the conversation no longer fits into the context: report an error, or omit the
            oldest exchanges from the prompt.

    Raises:
        UsageError: `overflow` is not one of these.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    overflow: Overflow = DEFAULT_OVERFLOW

    def __post_init__(self) -> None:
        check_value("overflow", self.overflow)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as the user sees it; `engine.options.RULES` says which values are valid.

    Attributes:
        name: a field of `SamplingParams`, or `overflow`.
        help: what it does, in a few words.
        suggestions: values offered by completion.
    """

    name: str
    help: str
    suggestions: tuple[str, ...] = ()

    @property
    def default(self) -> Any:
        """The built-in default."""
        return value_of(ChatSettings(), self)

    @property
    def is_optional(self) -> bool:
        """Whether the setting can be unset, which is then its default."""
        return self.default in (None, ())

    @property
    def limits(self) -> str:
        """The valid values in words."""
        return RULES[self.name].limits + (f", or {NONE}" if self.is_optional else "")

    def parse(self, text: str) -> Any:
        """Parse typed text.

        Raises:
            ValueError: the text is of the wrong type.
        """
        if text == NONE and self.is_optional:
            return self.default
        kind = RULES[self.name].kind
        return tuple(shlex.split(text)) if kind is list else kind(text)


SETTINGS = (
    Setting("max_new_tokens", "maximum length of an answer", ("128", "512", "2048")),
    Setting("temperature", "0 always takes the most likely token", ("0", "0.2", "0.7", "1")),
    Setting("top_k", "sample from the k most likely tokens; 0 is off", ("0", "20", "50")),
    Setting("top_p", "sample from the most likely that sum to p", ("0.8", "0.95", "1")),
    Setting("min_p", "drop tokens below p times the most likely one", ("0", "0.05", "0.1")),
    Setting("repetition_penalty", "above 1 makes repeated tokens less likely", ("1", "1.1", "1.2")),
    Setting("seed", "the same seed gives the same answer", (NONE, "0", "42")),
    Setting("stop", "end the answer before any of these, in quotes", (NONE,)),
    Setting("overflow", "what to do when the context is full", get_args(Overflow)),
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
        UsageError: the text is no such value, or breaks the setting's rule.
    """
    if text == "default":
        value = value_of(defaults, setting)
    else:
        try:
            value = setting.parse(text)
        except ValueError as exc:
            raise refuse(setting.name, text, f"or {NONE}" if setting.is_optional else None) from exc
    return replace_value(settings, setting, value)


def replace_value(settings: ChatSettings, setting: Setting, value: Any) -> ChatSettings:
    """Return the settings with another value of one of them.

    Raises:
        UsageError: the value breaks the setting's rule.
    """
    if setting.name == "overflow":
        return replace(settings, overflow=value)
    return replace(settings, sampling=replace(settings.sampling, **{setting.name: value}))


def value_of(settings: ChatSettings, setting: Setting) -> Any:
    """Return the value of a setting."""
    return settings.overflow if setting.name == "overflow" else getattr(settings.sampling, setting.name)


def show_value(value: object) -> str:
    """Format a value as it is typed."""
    if value is None or value == ():
        return NONE
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def changed_settings(settings: ChatSettings) -> Iterable[tuple[str, str]]:
    """Yield the names and values of settings that differ from the built-in defaults."""
    for setting in SETTINGS:
        value = value_of(settings, setting)
        if value != setting.default:
            yield setting.name, show_value(value)

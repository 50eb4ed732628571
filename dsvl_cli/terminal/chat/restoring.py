"""Brings a stored conversation back as it was: its model, settings and system prompt, and its last exchange.

Flags of the command line win over what was stored.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dsvl_cli.engine.options import LoadOptions
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.chat.loading import ModelChoice
from dsvl_cli.terminal.chat.settings import SETTINGS, ChatSettings, replace_value, show_value, value_of

if TYPE_CHECKING:
    from dsvl_cli.engine.conversation import Message
    from dsvl_cli.terminal.chat.conversation_store import StoredConversation

# The loading options that a conversation keeps: those that answers depend on. Device and threads are of the machine.
KEPT_OPTIONS = ("revision", "dtype", "quantization", "group_size", "include_vision", "include_head")
_MODEL = "model"
_QUESTION_LINES, _ANSWER_LINES = 2, 4
_WIDEST = 100  # columns of the last exchange
_ELLIPSIS = " …"


class ModelCatalogue(Protocol):
    """What a chat asks about models without loading one."""

    def names(self) -> Sequence[tuple[str, str]]:
        """Return the models to choose from, each with a few words about it."""
        ...

    def check(self, name: str) -> None:
        """Refuse what cannot be loaded, as far as it is known without loading; raises DsvlError."""
        ...

    def refer(self, name: str) -> str:
        """Return a name that is valid everywhere on this machine: a full path for a folder."""
        ...

    def find_obstacle(self, name: str, options: Mapping[str, Any]) -> DsvlError | None:
        """Return why a model cannot be loaded without downloading it, or None if it can."""
        ...


class AnyModel:
    """A catalogue that accepts every name."""

    def names(self) -> Sequence[tuple[str, str]]:
        """Return nothing."""
        return ()

    def check(self, name: str) -> None:
        """Accept it."""

    def refer(self, name: str) -> str:
        """Return it unchanged."""
        return name

    def find_obstacle(self, name: str, options: Mapping[str, Any]) -> DsvlError | None:
        """Find none."""
        return None


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a chat was started with.

    Attributes:
        load: the loading options.
        system: the system prompt.
        given: the names of the parameters that were set on the command line itself, or by a profile that it names; not
            those set in the environment or in files.
    """

    load: LoadOptions = field(default_factory=LoadOptions)
    system: str | None = None
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Restored:
    """What a conversation is continued with.

    Attributes:
        choice: the model.
        settings: of the answers.
        system: the system prompt.
        obstacle: why the stored model is not `choice`: it is not on this machine; None if there is no obstacle.
        came_back: what is as it was, in words.
        overruled: which flags win over what, in words.
    """

    choice: ModelChoice
    settings: ChatSettings
    system: str | None
    obstacle: DsvlError | None
    came_back: tuple[str, ...]
    overruled: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Both in one line; empty if there is nothing to say."""
        restored = f"restored: {', '.join(self.came_back)}" if self.came_back else ""
        return "; ".join(filter(None, (restored, *self.overruled)))


def values_to_keep(
    choice: ModelChoice, settings: ChatSettings, defaults: ChatSettings, line: CommandLine, model: str
) -> dict[str, Any]:
    """Return what a conversation keeps besides its messages, as JSON values.

    Args:
        choice: the model in use.
        settings: of the answers.
        defaults: those that the chat began with.
        line: what the chat was started with.
        model: the model's name, valid everywhere.
    """
    standard = LoadOptions()
    options = {name: choice.options.get(name, getattr(line.load, name)) for name in KEPT_OPTIONS}
    values: dict[str, Any] = {name: value for name, value in options.items() if value != getattr(standard, name)}
    values |= {setting.name: value_of(settings, setting) for setting in SETTINGS}
    # A seed that was drawn for this chat only makes its own answers repeatable.
    if "seed" not in line.given and settings.sampling.seed == defaults.sampling.seed:
        values["seed"] = None
    return {**values, _MODEL: model}


def restore(
    stored: StoredConversation, line: CommandLine, defaults: ChatSettings, catalogue: ModelCatalogue
) -> Restored:
    """Return what a stored conversation is continued with."""
    came_back: list[str] = []
    overruled: list[str] = []
    choice, obstacle = _restore_model(stored, line, catalogue, came_back, overruled)
    settings = _restore_settings(stored.settings, line, defaults, came_back, overruled)
    system = stored.conversation.system
    if "system" in line.given:
        if system not in (None, line.system):
            overruled.append("--system wins over the saved one")
        system = line.system
    elif system is not None:
        came_back.append("the system prompt")
    return Restored(choice, settings, system, obstacle, tuple(came_back), tuple(overruled))


def _restore_model(
    stored: StoredConversation,
    line: CommandLine,
    catalogue: ModelCatalogue,
    came_back: list[str],
    overruled: list[str],
) -> tuple[ModelChoice, DsvlError | None]:
    """Return the model to use, and why it is not the stored one if that is not on this machine."""
    name = _stored_model(stored, catalogue)
    if _MODEL in line.given:
        if _refer(line.load.model, catalogue) != _refer(name, catalogue):
            overruled.append(f"--model wins over {name}")
        return ModelChoice(line.load.model), None
    options = _stored_options(stored.settings, line)
    obstacle = catalogue.find_obstacle(name, options)
    if obstacle is not None:
        return ModelChoice(line.load.model), obstacle
    standard = LoadOptions()
    came_back.append(f"model {name}")
    came_back += [f"{key} {value}" for key, value in options.items() if value != getattr(standard, key)]
    for key in filter(line.given.__contains__, KEPT_OPTIONS):
        value = stored.settings.get(key)
        if value not in (None, getattr(line.load, key)):
            overruled.append(f"{_flag(key)} wins over {value}")
    return ModelChoice(name, {key: value for key, value in options.items() if value != getattr(line.load, key)}), None


def _restore_settings(
    stored: Mapping[str, Any],
    line: CommandLine,
    defaults: ChatSettings,
    came_back: list[str],
    overruled: list[str],
) -> ChatSettings:
    settings = defaults
    for setting in SETTINGS:
        value = stored.get(setting.name)
        if value is None:
            continue
        value = tuple(value) if isinstance(value, list) else value
        current = value_of(defaults, setting)
        if setting.name in line.given:
            if value != current:
                overruled.append(f"{_flag(setting.name)} wins over {show_value(value)}")
            continue
        try:
            settings = replace_value(settings, setting, value)
        except (DsvlError, TypeError):  # saved by another version
            continue
        if not value == current == setting.default:
            came_back.append(f"{setting.name} {show_value(value)}")
    return settings


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _refer(name: str, catalogue: ModelCatalogue) -> str:
    try:
        return catalogue.refer(name)
    except DsvlError:  # there is none
        return name


def _stored_model(stored: StoredConversation, catalogue: ModelCatalogue) -> str:
    """Return the name that the user gave, or the full path of a folder that this name does not lead to from here."""
    everywhere = str(stored.settings.get(_MODEL, stored.model))
    return stored.model if _refer(stored.model, catalogue) == everywhere else everywhere


def _stored_options(settings: Mapping[str, Any], line: CommandLine) -> dict[str, Any]:
    """Return the loading options to use, by name, without those of the command line."""
    if _MODEL not in settings:  # saved when these were not kept
        return {}
    standard = LoadOptions()
    wanted = {name: settings.get(name, getattr(standard, name)) for name in KEPT_OPTIONS if name not in line.given}
    try:
        LoadOptions(**wanted)
    except (DsvlError, TypeError):  # of another version
        return {}
    return wanted


def last_exchange(messages: Sequence[Message], width: int) -> list[str]:
    """Return the last question and its answer in a few lines of at most `width` columns."""
    lines: list[str] = []
    for message in messages[-2:]:
        if message.role == "user":
            pictures = len(message.pictures)
            shown = f"[{pictures} {'picture' if pictures == 1 else 'pictures'}] " if pictures else ""
            lines = list(_cut(f"> {shown}{message.text}", width, _QUESTION_LINES))
        else:
            lines += _cut(message.text, width, _ANSWER_LINES)
    return lines


def _cut(text: str, width: int, most: int) -> Iterator[str]:
    lines = textwrap.wrap(" ".join(text.split()), max(min(width, _WIDEST) - len(_ELLIPSIS), 10))
    yield from lines[: most - 1]
    if len(lines) >= most:
        yield lines[most - 1] + (_ELLIPSIS if len(lines) > most else "")

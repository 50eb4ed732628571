"""Commands on the model and its settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dsvl_cli.engine.constraints import JsonSchema
from dsvl_cli.engine.schemas import read_schema
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.chat.settings import SETTINGS, find_setting, set_value, show_value, value_of
from dsvl_cli.terminal.chat.slash.command import SlashCommand
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dsvl_cli.terminal.chat.chat import Chat


def change_setting(chat: Chat, argument: str) -> None:
    """Show all settings, or show or change one."""
    if not argument:
        rows = [(s.name, show_value(value_of(chat.settings, s)), f"{s.help}; {s.limits}") for s in SETTINGS]
        chat.tell(*align(rows, chat.console.status_width))
        return
    name, _, text = argument.replace("=", " ", 1).partition(" ")
    setting = find_setting(name)
    if text.strip():
        chat.settings = set_value(chat.settings, setting, text.strip(), chat.defaults)
        chat.save_if_begun()
    chat.tell(f"{setting.name} is {show_value(value_of(chat.settings, setting))}")


def offer_settings(_: Chat, typed: str) -> Iterable[str]:
    """Offer names, then values."""
    name, *rest = typed.split(" ", 1)
    if not rest:
        return [setting.name for setting in SETTINGS]
    values = {setting.name: setting.suggestions for setting in SETTINGS}
    return (*values.get(name, ()), "default")


def change_system(chat: Chat, argument: str) -> None:
    """Show or replace the system prompt."""
    conversation = chat.dialogue.conversation
    if argument:
        conversation.system = {"default": None, "none": "", "''": "", '""': ""}.get(argument, argument)
        chat.save_if_begun()
    if conversation.system is None:
        chat.tell("the system prompt is the model's default")
    elif conversation.system:
        chat.tell(f"the system prompt is: {conversation.system}")
    else:
        chat.tell("there is no system prompt")


def change_schema(chat: Chat, argument: str) -> None:
    """Show, set or drop the JSON Schema that answers follow."""
    if argument:
        is_off = argument.casefold() in ("off", "none", "default")
        schema = None if is_off else read_schema(argument.strip("'\""))  # quoted as in a shell
        sampling = replace(chat.settings.sampling, constraint=schema)
        chat.settings = replace(chat.settings, sampling=sampling)
    constraint = chat.settings.sampling.constraint
    if isinstance(constraint, JsonSchema):
        chat.tell(f"answers are JSON under {constraint.text}", "/schema off makes them free again")
    else:
        chat.tell("answers are free text; /schema FILE, or /schema 'colour, count int', makes them JSON")


def change_model(chat: Chat, argument: str) -> None:
    """List the models, or load another one, keeping the conversation and, until it is ready, the model in use."""
    loading = chat.loading
    if not argument:
        chat.tell(*_list_models(chat))
        return
    chat.services.catalogue.check(argument)
    before, was_loading = loading.ready, loading.loading
    loading.start(argument)
    if not loading.loading:
        chat.tell(f"{argument} stays in use" if was_loading else f"{argument} is in use already")
        return
    chat.stats = None
    kept = f"{before.name} stays in use until it is ready; /model {before.name} keeps it" if before else ""
    chat.tell(f"loading {argument}; the conversation is kept{', and ' if kept else ''}{kept}")


def _list_models(chat: Chat) -> list[str]:
    """Return the model in use, and the names to choose from."""
    loading = chat.loading
    lines = [f"{loading.ready.name} is in use"] if loading.ready else []
    if loading.loading:
        lines.append(f"{loading.name} is loading")
    rows = list(chat.services.catalogue.names())
    hint = "/model NAME loads another one: a name, a hub id org/name, or a folder"
    return [*(lines or ["no model is in use"]), *align(rows, chat.console.status_width), hint]


def show_stats(chat: Chat, _: str) -> None:
    """Show the statistics of the last answer."""
    stats, model = chat.stats, chat.loading.ready
    rows = [("model", chat.model_name)]
    if stats is not None:
        rows += [
            ("prompt", f"{stats.prompt_tokens:,} tokens, {stats.cached_tokens:,} of them cached"),
            ("time to first token", f"{stats.prompt_seconds:.2f} s"),
            ("answer", f"{stats.generated_tokens:,} tokens, {stats.tokens_per_second:.1f} tokens/s"),
        ]
        if stats.peak_memory_bytes is not None:
            rows.append(("peak memory", format_bytes(stats.peak_memory_bytes)))
    chat.measure()
    if model is not None and chat.context.used_tokens is not None:
        rows.append(("context", f"{chat.context.used_tokens:,} of {model.context_length:,} tokens used"))
    chat.tell(*align(rows, chat.console.status_width))
    if stats is None:
        raise DsvlError("there are no statistics yet", "they are available after the next complete answer")


def offer_models(chat: Chat, _: str) -> Iterable[str]:
    """Offer the known model names."""
    return chat.services.models


COMMANDS = (
    SlashCommand("set", "[NAME [VALUE]]", "show or change settings", change_setting, complete=offer_settings),
    SlashCommand("system", "[TEXT]", "show or replace the system prompt; default, none", change_system),
    SlashCommand("schema", "[SCHEMA]", "show or set a JSON Schema for answers; off", change_schema),
    SlashCommand("model", "[NAME]", "list the models, or load another one", change_model, complete=offer_models),
    SlashCommand("stats", "", "show tokens, times and memory of the last answer", show_stats),
)

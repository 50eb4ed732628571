"""What is wrong with a command line, in our own words: what the user wrote and where, and what would be right."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from dsvl_cli.commands.help import describe_metavar, describe_usage, list_choices
from dsvl_cli.config import Config
from dsvl_cli.engine.options import RULES, NotEmpty
from dsvl_cli.errors import DsvlError, SettingError, UsageError

_SWITCH = "true or false"
_LIST, _TEXT = str(NotEmpty(list[str])), str(NotEmpty(str))  # on the command line, each text is given by itself
# What people type for a command or option that has another name here.
_OTHER_NAMES = {
    "help": "--help", "version": "--version", "caption": "describe", "ask": "describe", "run": "chat", "ls": "list",
    "delete": "rm", "remove": "rm", "--output": "--out", "--max-length": "--max-new-tokens", "--n-predict":
    "--max-new-tokens", "--system-prompt": "--system", "--question": "--prompt", "--load-in-4bit":
    "--quantization 4bit", "--load-in-8bit": "--quantization 8bit", "--model-path": "--model",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """An option on the command line.

    Attributes:
        option: its declaration.
        name: as it was written, such as `--temp`.
        value: its value; None for a flag and for an option at the end that lacks one.
        is_apart: whether the value is an argument by itself.
    """

    option: Any
    name: str
    value: str | None
    is_apart: bool = False


def read_written(arguments: Sequence[str], parameters: Iterable[Any]) -> Iterator[Written]:
    """Yield the options of a command line as the parser takes them, as far as they exist."""
    options = {name: found for found in parameters for name in _names(found) if name.startswith("-")}
    rest = list(arguments)
    while rest and (word := rest.pop(0)) != "--":
        if len(word) < 2 or not word.startswith("-"):
            continue
        name, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name in options:
            if has_value or _is_flag(options[name]):
                yield Written(options[name], name, value if has_value else None)
            else:
                yield Written(options[name], name, rest.pop(0) if rest else None, is_apart=True)
        elif not word.startswith("--") and len(word) > 2 and f"-{name}" in options:
            yield Written(options[f"-{name}"], name, None)  # not as the parser takes it: `check_written` refuses it
        elif not word.startswith("--"):  # letters together, the last one perhaps with its value
            for place, letter in enumerate(word[1:], 2):
                found = options.get(f"-{letter}")
                if found is None:
                    break
                if not _is_flag(found):
                    value = word[place:] or (rest.pop(0) if rest else "")
                    yield Written(found, f"-{letter}", value, is_apart=not word[place:])
                    break
                yield Written(found, f"-{letter}", None)


def check_written(command: Any, ctx: typer.Context, arguments: Sequence[str]) -> None:
    """Refuse what the parser would take for something that was certainly not meant.

    Raises:
        UsageError: `-model tiny`, which would be `-m odel`, or `--prompt --json`, which would be a prompt.
    """
    parameters = command.get_params(ctx)
    names = {name for found in parameters for name in _names(found)}
    for written in read_written(arguments, parameters):
        if written.is_apart and written.value in names:
            raise UsageError(
                f"{written.name} needs a value, but is followed by {written.value}",
                f"if that is its value: {written.name if written.name.startswith('--') else _long(written.option)}"
                f"={written.value}",
            )
        if written.name not in names:
            raise UsageError(f"there is no option {written.name}", f"did you mean -{written.name}?")


def explain(exc: typer.TyperException, command: Any, ctx: typer.Context, arguments: Sequence[str]) -> UsageError:
    """Return the error to show in place of one of the parser's."""
    path = ctx.command_path
    parameter = getattr(exc, "param", None)
    if hasattr(exc, "param_type"):
        return _refuse_missing(parameter, command, ctx)
    if parameter is not None:
        return _refuse_value(parameter, exc, ctx, arguments)
    name: str | None = getattr(exc, "option_name", None)
    if name is None:
        return UsageError(exc.format_message(), f"{path} --help")
    if hasattr(exc, "possibilities"):
        return _refuse_option(name, command, ctx)
    option = next(found for found in command.get_params(ctx) if name in _names(found))
    if _is_flag(option):
        return UsageError(f"{name} takes no value", f"write {name} alone")
    return UsageError(f"{name} needs a value", f"{name} {describe_metavar(option, list_choices(option, ctx))}")


def refuse_extra(command: Any, ctx: typer.Context) -> UsageError:
    """Return the error for more arguments than the command takes."""
    arguments = [describe_usage(found) for found in command.get_params(ctx) if found.param_type_name == "argument"]
    taken = " ".join(arguments) if arguments else "no arguments"
    extra = " ".join(map(str, ctx.args))
    return UsageError(
        f"{ctx.command_path} takes {taken}; {extra} is too much", f"put a name with spaces in quotes; {_see_help(ctx)}"
    )


def refuse_command(group: Any, ctx: typer.Context, name: str) -> UsageError:
    """Return the error for a command that does not exist."""
    path = ctx.command_path
    names = group.list_commands(ctx)
    near = _find_near(name.lower(), [*names, "--help", *(["--version"] if ctx.parent is None else [])])
    if near is not None:
        return UsageError(f"there is no command {name}", f"did you mean {path} {near}?")
    if ctx.parent is None and (Path(name).suffix or os.path.exists(name) or "://" in name):
        word = "batch" if os.path.isdir(name) else "describe"
        return UsageError(f"there is no command {name}", f"to ask about a picture or a folder: {path} {word} {name}")
    return UsageError(f"there is no command {name}", f"choose from {', '.join(names)}; {_see_help(ctx)}")


def name_origins(error: DsvlError, command: Any, ctx: typer.Context) -> None:
    """Let an error name settings as the user made them: the option as written, the variable, or the file and line."""
    parameters = {found.name: found for found in command.get_params(ctx)}
    if isinstance(error, SettingError) and error.setting in parameters:
        origin = _find_origin(parameters[error.setting], ctx, command.arguments, error.value)
        if origin is not None:
            error.message = error.at(*origin).replace(f"must be {_LIST}", f"must be {_TEXT}")
            return
    for found in parameters.values():
        flag = _long(found)
        if flag is None or flag not in error.message or _source(found, ctx) not in ("ENVIRONMENT", "DEFAULT_MAP"):
            continue
        origin = _find_origin(found, ctx, command.arguments, None)
        if origin is not None:
            error.message = re.sub(rf"(?<![\w-]){flag}(?![\w-])", lambda _, name=origin[0]: name, error.message)  # type: ignore[misc]


def _find_origin(parameter: Any, ctx: typer.Context, arguments: Sequence[str], value: object) -> tuple[str, str] | None:
    """Return how the user names a parameter, and its value as text; None for a default of ours."""
    source = _source(parameter, ctx)
    if source == "ENVIRONMENT":
        return parameter.envvar, _show(os.environ.get(parameter.envvar, ""))
    config = ctx.find_object(Config)
    if source == "DEFAULT_MAP" and config is not None and parameter.name in config.values:
        found = config.values[parameter.name]
        return f"{found.place}: {parameter.name}", _show(str(found.value))
    if source != "COMMANDLINE":
        return None
    if parameter.param_type_name == "argument":
        return describe_metavar(parameter, []), _show(str(value))
    every = [
        each for each in read_written(arguments, ctx.command.get_params(ctx)) if each.option.name == parameter.name
    ]
    if not every:
        return None
    wrong = [each for each in every if each.value == value]
    last = (wrong or every)[-1]
    return last.name, _show(last.value or "")


def _refuse_missing(parameter: Any, command: Any, ctx: typer.Context) -> UsageError:
    words = [describe_usage(found) for found in command.get_params(ctx) if found.param_type_name == "argument"]
    name, meaning = describe_metavar(parameter, []), (parameter.help or "").removesuffix(".")
    meaning = meaning if meaning[1:2].isupper() else meaning[:1].lower() + meaning[1:]
    return UsageError(
        f"{ctx.command_path} needs {name}{f': {meaning}' if meaning else ''}",
        f"{' '.join([ctx.command_path, *words])}; {_see_help(ctx)}",
    )


def _refuse_value(
    parameter: Any, exc: typer.TyperException, ctx: typer.Context, arguments: Sequence[str]
) -> UsageError:
    errors = getattr(exc.__cause__, "errors", None)
    value = errors()[0].get("input") if callable(errors) else None
    name, text = _find_origin(parameter, ctx, arguments, value) or (parameter.name, _show(str(value)))
    choices = _list_values(parameter, ctx)
    near = _find_near(text, choices)
    hint = f"did you mean {near}?" if near else None
    return UsageError(f"{name} is {text}; it must be {_describe_values(parameter, choices)}", hint)


def _list_values(parameter: Any, ctx: typer.Context) -> list[str]:
    rule = RULES.get(parameter.name)
    return list_choices(parameter, ctx) if rule is None else [str(value) for value in rule.offered]


def _describe_values(parameter: Any, choices: Sequence[str]) -> str:
    rule = RULES.get(parameter.name)
    if rule is not None:
        return str(rule)
    if getattr(parameter, "is_flag", False):
        return _SWITCH
    if choices:
        return f"one of {', '.join(choices)}"
    least, most = getattr(parameter, "min", None), getattr(parameter, "max", None)
    if least is None:
        return "a whole number"
    return f"a whole number of at least {least}" if most is None else f"a whole number between {least} and {most}"


def _refuse_option(name: str, command: Any, ctx: typer.Context) -> UsageError:
    message = f"there is no option {name}"
    names = [flag for found in command.get_params(ctx) for flag in _names(found) if flag.startswith("--")]
    near = _find_near(name, names)
    if hasattr(command, "list_commands") and (near is None or near[:4] != name[:4]):
        return UsageError(message, f"options of a command come after it: {ctx.command_path} COMMAND {name}")
    return UsageError(message, f"did you mean {near}?" if near else f"{ctx.command_path} --help lists the options")


def _find_near(name: str, names: Sequence[str]) -> str | None:
    """Return what was probably meant by a wrong name, or None."""
    import difflib

    if _OTHER_NAMES.get(name, "").partition(" ")[0] in names:
        return _OTHER_NAMES[name]
    plain = name.replace("_", "-")
    begun = [each for each in names if len(plain) > 3 and each.startswith(plain)]
    bare = {each.lstrip("-"): each for each in names}  # dashes would make every option similar to every other
    near = [bare[each] for each in difflib.get_close_matches(plain.lstrip("-"), bare, n=1)]
    return next(iter([*near, *begun]), None)


def _source(parameter: Any, ctx: typer.Context) -> str:
    source = ctx.get_parameter_source(parameter.name)
    return "" if source is None else source.name


def _show(text: str) -> str:
    """Return a value as it was typed, in quotes if it would not be seen without them."""
    return text if text and text.isprintable() and not set(text) & set(" '\"") else repr(text)


def _names(parameter: Any) -> tuple[str, ...]:
    return (*parameter.opts, *parameter.secondary_opts) if parameter.param_type_name == "option" else ()


def _long(parameter: Any) -> str | None:
    return next((name for name in _names(parameter) if name.startswith("--")), None)


def _is_flag(option: Any) -> bool:
    return bool(option.is_flag or option.count)


def _see_help(ctx: typer.Context) -> str:
    return f"{ctx.command_path} --help explains it"

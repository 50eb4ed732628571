"""The help page of a command, as plain text of any width.

Names of options, choices and examples are never broken within: a line that cannot hold one is longer.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from dsvl_cli.terminal.console import Console, Environment

_WIDEST = 100  # columns; longer lines are hard to read
_TWO_COLUMNS = 70  # the least width for names and meanings side by side
_WIDEST_NAMES = 30  # columns of the names; longer ones have a line of their own
_LONGEST_METAVAR = 16
_HARD_SPACE = "\xa0"  # no line is broken there
_BOLD, _DIM, _END = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def render_help(command: Any, ctx: Any) -> str:
    """Return the help page of a command for this terminal."""
    console = Console(Environment.system())
    # Most pipes from here lead to a pager on the same terminal.
    width = console.width if console.answer_is_terminal else console.status_width
    return "\n".join(_Page(min(width, _WIDEST), styled=console.colour).lines(command, ctx))


def describe_metavar(parameter: Any, choices: list[str]) -> str:
    """Return what stands for the value of an option or argument."""
    metavar: str = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        return metavar or parameter.name.upper() + "..." * (parameter.nargs == -1)
    if len(choices) == 1:
        return choices[0]
    if metavar and not (choices and len(metavar) > _LONGEST_METAVAR):
        return metavar
    shortest = min((name for name in parameter.opts if name.startswith("--")), key=len)
    return str(shortest).rpartition("-")[2].upper()


def list_choices(parameter: Any, ctx: Any) -> list[str]:
    """Return the values of an option that takes one of a few, or []."""
    metavar: str = parameter.metavar or ""
    if "|" in metavar and len(metavar) > _LONGEST_METAVAR:
        return metavar.split("|")
    if metavar or parameter.is_flag or parameter.count:
        return []
    return [item.value for item in parameter.shell_complete(ctx, "")]


class _Page:
    """Renders a page of a width in columns; `styled` is for a terminal that has bold and dim letters."""

    def __init__(self, width: int, *, styled: bool) -> None:
        self._width = width
        self._styled = styled

    def lines(self, command: Any, ctx: Any) -> Iterator[str]:
        """Yield the lines."""
        parameters = [found for found in command.get_params(ctx) if not getattr(found, "hidden", False)]
        arguments = [found for found in parameters if found.param_type_name == "argument"]
        words = [describe_usage(found) for found in arguments]
        if hasattr(command, "list_commands"):
            is_optional = command.invoke_without_command and ctx.parent is not None
            words.append("[COMMAND ...]" if is_optional else "COMMAND ...")
        usage = " ".join([ctx.command_path, "[OPTIONS]", *words])
        yield from self._wrap(f"Usage: {usage}", "", " " * len("Usage: "))
        for paragraph in (command.help or "").split("\n\n"):
            yield ""
            yield from self._wrap(paragraph)
        if hasattr(command, "list_commands"):
            names = command.list_commands(ctx)
            yield from self._section("Commands", [(name, _summary(command.get_command(ctx, name))) for name in names])
        rows = [(describe_metavar(found, []), self._meaning(found, ctx)) for found in arguments if found.help]
        yield from self._section("Arguments", rows)
        panels: dict[str, list[Any]] = {}
        for found in parameters:
            if found.param_type_name == "option":
                panels.setdefault(getattr(found, "rich_help_panel", None) or "Options", []).append(found)
        # As declared, but the options without a title are first, or last if --help is the only one.
        for title in sorted(
            panels, key=lambda title: 0 if title != "Options" else 1 if len(panels[title]) == 1 else -1
        ):
            yield from self._section(title, [(self._names(f, ctx), self._meaning(f, ctx)) for f in panels[title]])
        yield from self._epilog(command.epilog or "")

    def _section(self, title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
        if not rows:
            return
        yield from ("", self._style(f"{title}:", _BOLD))
        side_by_side = self._width >= _TWO_COLUMNS
        column = 2 + min(max(len(names) for names, _ in rows), _WIDEST_NAMES) + 2
        for names, meaning in rows:
            first = f"  {names}" if side_by_side else f"  {names.strip()}"
            indent = " " * (column if side_by_side else 6)
            lines = list(self._wrap(meaning, indent, indent))
            if side_by_side and lines and len(first) + 2 <= column:
                lines[0] = first.ljust(column) + lines[0].lstrip()
            else:
                yield first
            yield from lines

    def _names(self, option: Any, ctx: Any) -> str:
        """Return `-m, --model NAME`; without a short name, the long one is below the others."""
        every = [*option.opts, *option.secondary_opts]
        short = [name for name in every if not name.startswith("--")]
        names = ", ".join([*short, *(name for name in every if name.startswith("--"))])
        value = "" if option.is_flag or option.count else f" {describe_metavar(option, list_choices(option, ctx))}"
        return f"{'' if short else '    '}{names}{value}"

    def _meaning(self, parameter: Any, ctx: Any) -> str:
        parts = [_first_paragraph(parameter.help)]
        if parameter.param_type_name == "option":
            if len(choices := list_choices(parameter, ctx)) > 1:
                parts[0] = f"{parts[0].removesuffix('.')}."
                parts.append(f"One of: {', '.join(choices)}.")
            default = parameter.default
            if parameter.show_default and default not in (None, "", (), []) and default is not False:
                parts.append(f"[default:{_HARD_SPACE}{default}]")
        return " ".join(parts)

    def _epilog(self, text: str) -> Iterator[str]:
        """Yield the text after the options, where a line with `$` is a command and one with `#` is about the next."""
        if "\n$ " in text:
            yield from ("", self._style("Examples:", _BOLD))
        elif text:
            yield ""
        for line in text.strip().split("\n") if text else []:
            if line.startswith("$ "):
                yield f"  {line}"
            elif line.startswith("# "):
                yield from (self._style(part, _DIM) for part in self._wrap(line[2:], "  # ", "  # "))
            else:
                yield from self._wrap(line) if line else [""]

    def _wrap(self, text: str, first: str = "", rest: str = "") -> Iterator[str]:
        width = max(self._width, len(rest) + 12)
        lines = textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
        )
        yield from (line.replace(_HARD_SPACE, " ") for line in lines)

    def _style(self, text: str, style: str) -> str:
        return f"{style}{text}{_END}" if self._styled else text


def describe_usage(argument: Any) -> str:
    """Return an argument as in the usage line: in brackets if it is optional."""
    shown = describe_metavar(argument, [])
    return shown if argument.required else f"[{shown}]"


def _summary(command: Any) -> str:
    return _first_paragraph(command.help)


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())

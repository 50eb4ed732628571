"""`dsvl doctor`: runs the probes one by one, prints a report, and returns whether dsvl can work here."""

from __future__ import annotations

import faulthandler
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dsvl_cli import __version__, config
from dsvl_cli.app.models import describe_state
from dsvl_cli.engine import diagnosis
from dsvl_cli.engine.diagnosis import Fact, Finding, examine, hide_secrets, is_secret
from dsvl_cli.engine.inventory import list_models
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.errors import DsvlError, ExitStatus
from dsvl_cli.settings import ALL_SETTINGS, Setting
from dsvl_cli.terminal.sanitize import sanitize_line
from dsvl_cli.terminal.table import align

if TYPE_CHECKING:
    from dsvl_cli.engine.machine.detect import Machine
    from dsvl_cli.terminal.console import Console

# Foreign variables that affect dsvl.
_FOREIGN = (
    "HF_", "HUGGING", "TRANSFORMERS_", "XDG_C", "XDG_DATA_HOME", "CUDA_VISIBLE", "OMP_", "MKL_", "NO_COLOR", "COLUMNS",
    "HTTP_PROXY", "HTTPS_PROXY",
)  # fmt: skip
_SWITCHES = ("1", "0", "true", "false", "t", "f", "yes", "no", "y", "n", "on", "off")  # as Typer reads them
_LONGEST = 300  # characters of a value in the report


def run_doctor(console: Console, profile: str | None, *, as_json: bool, measure: bool = False) -> ExitStatus:
    """Run all probes, print the verdict and then the report, and return whether dsvl can work.

    Args:
        console: where the report goes.
        profile: whose settings are shown.
        as_json: print one JSON object.
        measure: time the implementations of products on the CPU again.
    """
    hide = partial(hide_secrets, variables=console.environment.variables)
    found: dict[str, Finding] = {}
    _report_crashes(console)
    for title, probe in _probes(console, profile, measure=measure):
        with console.working(title):
            found[title] = examine(probe)
    # What the reader wants to know first.
    found = {"models": found.pop("models"), **found}
    problems = [
        DsvlError(f"{title}: {error.message}", error.hint)
        for title, finding in found.items()
        for error in finding.problems
    ]
    if as_json:
        page = {
            "verdict": "problems" if problems else "fine",
            **{title: {fact.name: fact.value for fact in finding.facts} for title, finding in found.items()},
            "problems": [{"message": error.message, "hint": error.hint} for error in problems],
        }
        console.write(json.dumps(hide(page)) + "\n")
        return ExitStatus.ERROR if problems else ExitStatus.OK
    if problems:
        rows = [(str(number), hide(_sentence(error))) for number, error in enumerate(problems, 1)]
        _write_section(console, "1 problem" if len(problems) == 1 else f"{len(problems)} problems", rows)
    else:
        console.heading("fine: nothing keeps dsvl from working here")
        console.write("\n")
    for title, finding in found.items():
        rows = [(fact.name.removesuffix("_bytes"), hide(str(fact))) for fact in finding.facts]
        _write_section(console, title, rows)
    return ExitStatus.ERROR if problems else ExitStatus.OK


def _report_crashes(console: Console) -> None:
    """Let a crash of the process name the library: a broken one may end it before anything is printed."""
    with suppress(OSError, ValueError, AttributeError):
        if not faulthandler.is_enabled():
            faulthandler.enable(console.environment.stderr)


def _probes(console: Console, profile: str | None, *, measure: bool) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield the title and the probe of each section; those that might crash the process come last."""
    variables = console.environment.variables
    yield "dsvl", lambda: Finding([Fact("version", __version__)])
    yield "packages", lambda: diagnosis.check_packages(diagnosis.find_requirements())
    yield "computer", diagnosis.describe_computer
    yield "terminal", lambda: _describe_terminal(console)
    yield "environment", lambda: _check_environment(variables)
    yield "settings", lambda: _describe_settings(variables, profile)
    yield "conversations", lambda: _describe_sessions(variables)
    yield "embedded model", diagnosis.check_embedded_model
    yield "hub cache", diagnosis.describe_hub_cache
    yield "cache folder", diagnosis.describe_cache_folder
    machines = []

    def describe_choices() -> Finding:
        machines.append(diagnosis.find_machine())
        return diagnosis.describe_choices(machines[0])

    yield "choices", describe_choices
    yield "models", lambda: _describe_models(variables, machines[0] if machines else None)
    yield "quantization", lambda: diagnosis.describe_quantization(machines[0].devices if machines else ("cpu",))

    def describe_products() -> Finding:
        if not machines:  # a problem already
            return Finding([Fact("products", None, "unknown without torch")])
        return diagnosis.describe_products(machines[0], renew=measure)

    yield "products", describe_products


def _describe_models(variables: Mapping[str, str], machine: Machine | None) -> Finding:
    """Return which models are on this machine, and which would fit; without torch, the latter is unknown."""
    try:
        aliases = config.read_config(variables).aliases
    except DsvlError:  # a problem of the settings
        aliases = {}
    facts = []
    for entry in list_models(aliases, machine):
        fits = None if entry.fit is None else entry.fit.fits
        value = {"here": entry.path is not None, "fits": fits, "problem": entry.problem}
        facts.append(Fact(entry.name, value, describe_state(entry)))
    return Finding(facts)


def _write_section(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    console.heading(title)
    # Only after hiding secrets: half a secret would not be recognised.
    short = [(name, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…") for name, text in rows]
    safe = [(f"  {sanitize_line(name)}", sanitize_line(text)) for name, text in short]
    console.write("".join(f"{line}\n" for line in [*align(safe, console.width), ""]))


def _sentence(error: DsvlError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _describe_terminal(console: Console) -> Finding:
    pictures = "none"
    if console.colour and console.answer_is_unicode:
        pictures = "half blocks"
        if find_spec("textual_image") is not None:
            pictures = "sixel or kitty's protocol where the terminal has it, else half blocks"
    abilities = {
        "terminal": console.answer_is_terminal,
        "colours": console.colour,
        "redraws": console.can_redraw,
        "unicode": console.answer_is_unicode,
    }
    facts = [Fact(name, able, "yes" if able else "no") for name, able in abilities.items()]
    size = {"columns": console.width, "lines": console.height}
    facts.append(Fact("size", size, f"{console.width} columns, {console.height} lines"))
    return Finding([*facts, Fact("pictures", pictures), Fact("TERM", console.environment.variables.get("TERM"))])


def _check_environment(variables: Mapping[str, str]) -> Finding:
    """Return the variables that affect dsvl, and report unknown names and wrong values."""
    known = {f"DSVL_{name.upper()}": setting for name, setting in ALL_SETTINGS.items() if name != "stop"}
    unknown = config.find_unknown_variables(variables)
    facts, problems = [], []
    for name, value in sorted(variables.items()):
        if not value or not name.upper().startswith(("DSVL_", *_FOREIGN)):
            continue
        text = "set" if is_secret(name) else value
        if name in known:
            problems += check_variable(name, value, known[name])
        elif name in unknown:
            near = unknown[name]
            facts.append(Fact(name, text, f"{text} (unknown to dsvl{f'; did you mean {near}?' if near else ''})"))
            continue
        facts.append(Fact(name, text))
    return Finding(facts or [Fact("variables", None, "none that affects dsvl")], problems)


def check_variable(name: str, text: str, setting: Setting) -> list[DsvlError]:
    """Check the value of a setting in the environment, as Typer would."""
    if setting.kind is bool:
        right = text.strip().lower() in _SWITCHES
    else:
        try:
            right = setting.accepts(setting.kind(text))
        except ValueError:
            right = False
    return [] if right else [DsvlError(f"{name} is {text}; it must be {setting.words}", f"unset {name}")]


def _describe_settings(variables: Mapping[str, str], profile: str | None) -> Finding:
    """Return the settings that differ from the built-in defaults, and where each one is set."""
    user = config.config_folder(variables) / "config.toml"
    facts = [Fact("config.toml", str(user), f"{user}{'' if user.is_file() else ' (not found)'}")]
    problems: list[DsvlError] = []
    found = config.Config()
    try:
        found = config.read_config(variables, profile)
    except DsvlError as error:
        problems.append(error)
    facts += [Fact(path.name, str(path.absolute())) for path in found.files if path != user]
    facts += [Fact("profile", profile)] if profile else []
    facts += [Fact("profiles", list(found.profiles), ", ".join(found.profiles))] if found.profiles else []
    facts += [Fact(f"alias {name}", target) for name, target in found.aliases.items()]
    for name in ALL_SETTINGS:
        variable = f"DSVL_{name.upper()}"
        if name != "stop" and variables.get(variable):
            value: Any = variables[variable]
            place = f"{variable} in the environment"
        elif name in found.values:
            value, place = found.values[name].value, found.values[name].place
        else:
            continue
        facts.append(Fact(name, {"value": value, "from": place}, f"{value} (from {place})"))
    for command in config.COMMANDS if not problems else ():
        own = config.read_config(variables, profile, command=command).values
        for name, each in own.items():
            if found.values.get(name) != each:
                fact = {"value": each.value, "from": each.place}
                facts.append(Fact(f"{command}: {name}", fact, f"{each.value} (from {each.place})"))
    return Finding([*facts, Fact("others", "built-in defaults")], problems)


def _describe_sessions(variables: Mapping[str, str]) -> Finding:
    from dsvl_cli.sessions.store import (
        default_store_path,
    )  # here, so that a Python without SQLite is reported as a problem

    path = default_store_path(variables)
    size = path.stat().st_size if path.is_file() else None
    disk = diagnosis.check_disk(path.parent)
    shown = "none yet" if size is None else format_bytes(size)
    return Finding([Fact("path", str(path)), Fact("size_bytes", size, shown), *disk.facts], disk.problems)

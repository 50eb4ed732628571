"""The Typer app, and the only error boundary: `main(argv) -> int`."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from dsvl_cli import __version__
from dsvl_cli.commands.lazy import LazyGroup
from dsvl_cli.errors import DsvlError, ExitStatus, SomeFailed, UsageError, is_out_of_memory
from dsvl_cli.terminal.console import Console, Environment
from dsvl_cli.terminal.deferral import ENDING_SIGNALS

_MOMENT_SECONDS = 5.0


_COMMANDS = {
    "chat": ("Chat about pictures; the conversation is saved.", "dsvl_cli.commands.chat:chat"),
    "describe": ("Describe pictures, or answer a question about them.", "dsvl_cli.commands.describe:describe"),
    "batch": (
        "Ask about many pictures: one row per picture, with an answer or an error.",
        "dsvl_cli.commands.batch:batch",
    ),
    "quantize": (
        "Write a quantized copy of a model: a folder that transformers can load anywhere.",
        "dsvl_cli.commands.quantize:quantize",
    ),
    "models": (
        "List the models that can be named, and whether each would fit; remove downloaded ones.",
        "dsvl_cli.commands.models:app",
    ),
    "doctor": (
        "Show what dsvl finds on this machine, and what it would choose.",
        "dsvl_cli.commands.doctor:doctor",
    ),
    "config": (
        "Print an example of config.toml or its path, or open it in your editor.",
        "dsvl_cli.commands.config:app",
    ),
    "sessions": (
        "List, show, search, name, export and remove saved conversations.",
        "dsvl_cli.commands.sessions:app",
    ),
}


class _Group(LazyGroup):
    """Handles a closed pipe before Typer does, which would report a failure."""

    listed = _COMMANDS

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return ExitStatus.OK


app = typer.Typer(
    name="dsvl",
    cls=_Group,
    help="Chat about pictures on your own machine: DeepSeek-VL in the terminal.",
    epilog="Start with `dsvl describe picture.jpg`. For help on a command: dsvl COMMAND --help",
    add_completion=False,  # the wheel installs the scripts of completions/
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dsvl {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _top(
    ctx: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; raises nothing.

    Args:
        argv: the arguments without the program's name; the process's own by default.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    _occupy_descriptors()
    console = Console(Environment.system())
    signals = _Signals()
    try:
        with signals:
            status = typer.main.get_command(app).main(args=arguments, prog_name="dsvl", standalone_mode=False)
            return int(status or ExitStatus.OK)
    except BrokenPipeError:
        return ExitStatus.OK
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else ExitStatus.ERROR
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BaseException as exc:
        if (number := signals.just_raised()) is not None:
            return 128 + number
        # stderr may be the pipe that was closed.
        with suppress(BrokenPipeError):
            if _wants_traceback(arguments):
                console.traceback("".join(traceback.format_exception(exc)))
            elif (error := _explain(exc)) is not None:
                console.error(error)
        return _status_of(exc)
    finally:
        _settle_streams()


def _occupy_descriptors() -> None:
    """Open the null device as those of stdin, stdout and stderr that are closed.

    Otherwise a file that is opened later would be number 1, and get what libraries and child processes print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _explain(exc: BaseException) -> DsvlError | None:
    """Return the error to report, or None if everything was reported already."""
    if isinstance(exc, SomeFailed):
        return None
    if isinstance(exc, DsvlError):
        return exc
    if isinstance(exc, typer.TyperException):
        context = getattr(exc, "ctx", None)
        command = context.command_path if context is not None else "dsvl"
        return UsageError(exc.format_message(), f"{command} --help")
    if isinstance(exc, OSError) and exc.errno is not None:  # no bug: a full disk, a closed or missing place
        place = f"{os.fsdecode(exc.filename)}: " if isinstance(exc.filename, (str, bytes)) else ""
        return DsvlError(f"{place}{os.strerror(exc.errno)}", "the output or a file it needs cannot be used")
    if is_out_of_memory(exc):
        return DsvlError("out of memory", "use a smaller dtype or model, fewer or smaller pictures, or --model tiny")
    return DsvlError(f"this is a bug in dsvl: {type(exc).__name__}: {exc}", "run it again with --debug and report it")


def _status_of(exc: BaseException) -> int:
    if isinstance(exc, DsvlError):
        return exc.status
    if isinstance(exc, typer.TyperException):
        return ExitStatus.USAGE
    is_fate = is_out_of_memory(exc) or (isinstance(exc, OSError) and exc.errno is not None)
    return ExitStatus.ERROR if is_fate else ExitStatus.BUG


def _wants_traceback(arguments: Sequence[str]) -> bool:
    return "--debug" in arguments or os.environ.get("DSVL_DEBUG", "") not in ("", "0")


def _settle_streams() -> None:
    """Flush the streams; if the reader or the terminal is gone, discard what is buffered.

    Otherwise the interpreter would complain at exit, and change the exit status.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


class _Signals:
    """Makes termination signals raise `SystemExit(128 + n)`, so that cleanup runs; Ctrl-C raises `KeyboardInterrupt`.

    An extension module that calls Python code may replace the exception with its own error, so the time of the last
    signal is kept too.
    """

    def __init__(self) -> None:
        self._number = 0
        self._came_at = float("-inf")
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        for name in ENDING_SIGNALS:
            number = getattr(signal, name, None)
            # An ignored signal stays ignored: SIGHUP under `nohup`, SIGINT in a shell's background job.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                with suppress(ValueError):  # not in the main thread: a test, or a program that embeds us
                    self._previous[number] = signal.signal(number, self._leave)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def just_raised(self) -> int | None:
        """Return the number of a signal received a moment ago, or None."""
        return self._number if time.monotonic() - self._came_at < _MOMENT_SECONDS else None

    def _leave(self, number: int, _: object) -> None:
        self._number, self._came_at = number, time.monotonic()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

"""`dsvl doctor`: a report on the machine, the choices dsvl would make on it, and what keeps it from working."""

from __future__ import annotations

from typing import Annotated

import typer

from dsvl_cli.commands import options


def doctor(
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            envvar="DSVL_PROFILE",
            show_envvar=False,
            autocompletion=options.complete_profile,
            metavar="NAME",
            help="Show the settings under this profile.",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Time the implementations of products on this CPU again, and store the fastest ones."
        ),
    ] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Show what dsvl finds on this machine, and what it would choose.

    The report begins with the verdict: fine, or the problems and what to do about them. Then follow the models that are
    here or would fit, and the details.

    Nothing is downloaded, and secrets are hidden. The exit status is 1 if anything would keep dsvl from working. Please
    include this report in bug reports.
    """
    from dsvl_cli.app.doctor import run_doctor

    return run_doctor(options.make_console(), profile, as_json=as_json, measure=measure)

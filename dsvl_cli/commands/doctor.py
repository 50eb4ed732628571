"""`dsvl doctor`: one page on the machine, the choices that would be made on it, and what keeps dsvl from working."""

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
            help="Show the settings with this profile.",
        ),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Show what dsvl finds on this machine and what it would choose.

    Nothing is fetched, and no secret is shown. The exit status is 1 if something would keep dsvl from working. Begin a
    bug report with this page.
    """
    from dsvl_cli.app.doctor import run_doctor

    return run_doctor(options.make_console(), profile, as_json=as_json)

"""`python -m dsvl_cli`: the same program as the console script `dsvl`."""

from __future__ import annotations

from dsvl_cli.cli import run

if __name__ == "__main__":
    run()

"""`python -m dsvl_cli`: the same program as the console script `dsvl`."""

from __future__ import annotations

import sys

from dsvl_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())

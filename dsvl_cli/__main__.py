"""The program: the console script `dsvl`, and `python -m dsvl_cli`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import NoReturn

from dsvl_cli.errors import ExitStatus


def run() -> NoReturn:
    """Run the command line, and end the process with its exit status."""
    try:
        from dsvl_cli.cli import main
    except KeyboardInterrupt:  # the imports take longer than an impatient Ctrl-C
        sys.exit(ExitStatus.INTERRUPTED)
    status = main()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # All is done: a Ctrl-C that comes now must not show a traceback of what libraries do at exit.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # At its end, the interpreter stops daemon threads wherever they are. One within C++ code, such as the thread that
    # loads a chat's model while it imports torch, would abort the process, and may be minutes from its end.
    if any(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        logging.shutdown()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()

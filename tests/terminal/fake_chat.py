"""`dsvl chat` with a fake model, for tests that drive it in a terminal: `python -m tests.terminal.fake_chat '{...}'`.

The argument is JSON: `answers`, `delay` (seconds a token), `load_delay`, `load_error`, `context_length`, `images`,
`readings`, `read_delay` (seconds before each), `plain`, `signals` (as the program has them), `options` (keyword
arguments of `run_chat`).
"""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

from dsvl_cli.app.chat import run_chat
from dsvl_cli.engine.conversation import ChatModel
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.engine.progress import Listener, Reading
from dsvl_cli.errors import DsvlError
from dsvl_cli.terminal.console import Console, Environment
from tests.terminal.fake_model import FakeModel


def main(config: dict[str, Any]) -> int:
    def load(name: str, listener: Listener, **_: Any) -> ChatModel:
        for step in range(10):
            time.sleep(config.get("load_delay", 0.0) / 10)
            listener.progress("weights", step, 10)
        if name == config.get("load_error"):
            raise DsvlError(f"{name} is not to be had", "try another")
        listener.note(f"{name} is a fake")
        return FakeModel(
            config.get("answers", []),
            name,
            delay=config.get("delay", 0.0),
            context_length=config.get("context_length", 1000),
            readings=[Reading(*numbers) for numbers in config.get("readings", ())],
            read_delay=config.get("read_delay", 0.0),
        )

    if config.get("signals"):
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda caught, _: sys.exit(128 + caught))
    console = Console(Environment.system(), plain=config.get("plain", False))
    options = LoadOptions(model=config.get("model", "fake"))
    images, more = config.get("images", []), config.get("options", {})
    return run_chat(console, images, options, SamplingParams(), load=load, **more)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}))

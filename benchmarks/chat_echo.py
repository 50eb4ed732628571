"""`python -m benchmarks.chat_echo`: time to the chat's prompt, and latency of typed keys while the model loads.

Runs `dsvl chat` in a pseudo-terminal and, once the prompt appears, types a key every 50 ms; each is timed until the
screen shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import select
import statistics
import sys
import tempfile
import time

KEYS = "thequickbrownfoxjumpsoverthelazydog"


def read(terminal: int, seconds: float) -> bytes:
    """Read for some seconds, answering the program's queries for the cursor position."""
    ready, _, _ = select.select([terminal], [], [], seconds)
    data = os.read(terminal, 65536) if ready else b""
    if b"\x1b[6n" in data:
        os.write(terminal, b"\x1b[1;1R")
    return data


def measure(model: str, keys: int) -> tuple[float, list[float]]:
    """Return the seconds until the prompt, and until the echo of each key."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        child, terminal = pty.fork()
        if child == 0:
            os.environ.update(DSVL_DATA_DIR=folder, TERM="xterm-256color", COLUMNS="100", LINES="30")
            os.execv(sys.executable, [sys.executable, "-m", "dsvl_cli", "chat", "--model", model, "--offline"])
        shown = b""
        while b"m>" not in shown:  # the prompt, behind the end of a style
            shown += read(terminal, 1.0)
        prompt = time.perf_counter() - start
        echoes = []
        for key in (KEYS * (keys // len(KEYS) + 1))[:keys]:
            rest = time.perf_counter() + 0.05
            while (left := rest - time.perf_counter()) > 0:
                read(terminal, left)
            pressed = time.perf_counter()
            os.write(terminal, key.encode())
            while key.encode() not in read(terminal, 5.0):
                pass
            echoes.append(time.perf_counter() - pressed)
        os.write(terminal, b"\x15/exit\r")
        while True:
            try:
                if not read(terminal, 10.0):
                    break
            except OSError:  # the terminal is closed
                break
        os.waitpid(child, 0)
    return prompt, echoes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=100)
    args = parser.parse_args()
    measure(args.model, 5)
    runs = [measure(args.model, args.keys) for _ in range(args.rounds)]
    prompts = [prompt for prompt, _ in runs]
    echoes = sorted(echo for _, echoes in runs for echo in echoes)
    late = sum(echo > 0.1 for echo in echoes)
    print(f"prompt after {statistics.median(prompts):.2f} s (worst {max(prompts):.2f} s) over {args.rounds} starts")
    print(
        f"{len(echoes)} keys: median echo {1e3 * statistics.median(echoes):.0f} ms, "
        f"99th percentile {1e3 * echoes[int(0.99 * len(echoes))]:.0f} ms, worst {1e3 * echoes[-1]:.0f} ms, "
        f"{late} above 100 ms"
    )
    print(json.dumps({"benchmark": "chat_echo", "prompt_seconds": prompts, "echo_seconds": echoes}))


if __name__ == "__main__":
    main()

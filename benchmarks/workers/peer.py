"""The command line and the questions of the peers' workers, which run in other interpreters: standard library only."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

FIRST_TOKEN = 300  # those before are bytes and control tokens

Evaluate = Callable[[Sequence[int]], object]  # computes the scores behind some more tokens


def read_shape(checkpoint: Path) -> dict[str, int]:
    """Return the sizes of a checkpoint's language model."""
    config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    return {name: config[name] for name in names}


def locate(folder: Path, shape: dict[str, int], kind: str) -> Path:
    """Return the path of the model of a shape and kind."""
    return folder / f"{shape['hidden_size']}x{shape['num_hidden_layers']}.{kind}"


def ask(begin: Callable[[], Evaluate], vocabulary: int, prompt_tokens: int, new_tokens: int) -> dict[str, float]:
    """Evaluate a prompt, which yields the first of `new_tokens` tokens, and the steps for the others.

    Args:
        begin: forgets what was evaluated, and returns the function that evaluates.
        vocabulary: the number of tokens.
        prompt_tokens: the length of the prompt.
        new_tokens: how many follow.
    """
    span = vocabulary - FIRST_TOKEN
    evaluate = begin()
    start = time.perf_counter()
    evaluate([FIRST_TOKEN + index % span for index in range(prompt_tokens)])
    first = time.perf_counter()
    for index in range(new_tokens - 1):
        evaluate([FIRST_TOKEN + index % span])
    return {
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "first_seconds": first - start,
        "seconds": time.perf_counter() - start,
    }


def run(
    kinds: Iterable[str],
    make: Callable[[dict[str, int], Path, list[str], int], None],
    load: Callable[[Path, int, int], Callable[[], Evaluate]],
    version: str,
) -> None:
    """Make models, or measure one, as the command line says.

    Args:
        kinds: the formats.
        make: writes the missing models of a shape into a folder, in some formats, with so many threads.
        load: loads the model at a path for a number of tokens, with so many threads; returns `begin` of `ask`.
        version: of the peer.
    """
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    making, asking = commands.add_parser("make"), commands.add_parser("ask")
    for command in (making, asking):
        command.add_argument("checkpoint", type=Path)
        command.add_argument("folder", type=Path)
        command.add_argument("--threads", type=int, default=2)
    making.add_argument("--kinds", nargs="+", choices=[*kinds], default=[*kinds])
    asking.add_argument("--kind", choices=[*kinds], required=True)
    asking.add_argument("--prompt-tokens", type=int, required=True)
    asking.add_argument("--new-tokens", type=int, required=True)
    asking.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    shape = read_shape(args.checkpoint)
    if args.command == "make":
        args.folder.mkdir(parents=True, exist_ok=True)
        make(shape, args.folder, args.kinds, args.threads)
        print(json.dumps([str(locate(args.folder, shape, kind)) for kind in args.kinds]))
        return
    start = time.perf_counter()
    begin = load(locate(args.folder, shape, args.kind), args.prompt_tokens + args.new_tokens, args.threads)
    seconds = time.perf_counter() - start
    measure = partial(ask, begin, shape["vocab_size"])
    measure(16, 2)  # warms up
    runs = [measure(args.prompt_tokens, args.new_tokens) for _ in range(args.repeats)]
    print(json.dumps({"load_seconds": seconds, "runs": runs, "version": version}))

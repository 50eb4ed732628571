"""`python -m benchmarks.malformed`: what malformed pictures, bombs and odd ones cost, each in a process of its own.

Decodes 1,000 malformed pictures of 10 formats, 25 bombs and 40 odd but sound ones as `dsvl batch` does, and prints the
longest time and the most memory beyond the process's own. Fails where one takes 5 seconds, 300 MiB, or ends in anything
but a picture or an error that is told. Sound pictures of as many pixels as are allowed are shown beside them: they take
more memory, since decoding them needs 4 to 5 bytes a pixel.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass

from benchmarks.timing import describe_machine
from dsvl_cli.engine.images import decode, picture_from_bytes
from tests.batch.malformed import FORMATS, SEED, bombs, large, malformed, odd
from tests.engine.pictures import encoded, scene

MAX_SECONDS = 5.0
MAX_MEBIBYTES = 300.0
_UNIT = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in a MiB


@dataclass(frozen=True)
class Cost:
    """What one picture cost.

    Attributes:
        outcome: `picture`, `ImageError`, the name of another error, or of the signal that ended it.
    """

    name: str
    outcome: str
    seconds: float
    mebibytes: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="malformed pictures")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    for kind in FORMATS:  # so that every child begins with all decoders loaded
        decode(picture_from_bytes(encoded(scene(), kind), kind))
    groups = {
        "malformed": malformed(arguments.count, arguments.seed),
        "bombs": bombs(),
        "odd": odd(),
        "large": large(),
    }
    print(f"{'':12} {'number':>6} {'pictures':>8} {'refused':>8} {'other':>6}   longest, and most memory")
    results = {}
    bad: list[Cost] = []
    for group, cases in groups.items():
        costs = [measure(name, data) for name, data in cases]
        outcomes = Counter(cost.outcome for cost in costs)
        slowest, largest = max(costs, key=lambda cost: cost.seconds), max(costs, key=lambda cost: cost.mebibytes)
        other = len(costs) - outcomes["picture"] - outcomes["ImageError"]
        print(
            f"{group:12} {len(costs):6} {outcomes['picture']:8} {outcomes['ImageError']:8} {other:6}   "
            f"{slowest.seconds:.2f} s ({slowest.name}), {largest.mebibytes:.0f} MiB ({largest.name})"
        )
        results[group] = {"outcomes": outcomes, "slowest": asdict(slowest), "largest": asdict(largest)}
        bad += [cost for cost in costs if group != "large" and not is_bearable(cost)]
    print(json.dumps({"benchmark": "malformed", "results": results, "machine": describe_machine()}))
    for cost in bad:
        print(f"too much: {cost.name}: {cost.outcome}, {cost.seconds:.2f} s, {cost.mebibytes:.0f} MiB")
    sys.exit(1 if bad else 0)


def is_bearable(cost: Cost) -> bool:
    """Whether a picture kept within what is promised."""
    known = cost.outcome in ("picture", "ImageError")
    return known and cost.seconds < MAX_SECONDS and cost.mebibytes < MAX_MEBIBYTES


def measure(name: str, data: bytes) -> Cost:
    """Decode in a fork, which is ended after a minute."""
    reading, writing = os.pipe()
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(60)
        outcome = decode_once(name, data)
        os.write(writing, pickle.dumps(outcome))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        return Cost(name, signal.Signals(os.WTERMSIG(status)).name, time.perf_counter() - started, 0.0)
    return Cost(name, *pickle.loads(answer))


def decode_once(name: str, data: bytes) -> tuple[str, float, float]:
    """Return the outcome, the seconds, and how many MiB the process has grown at its highest."""
    before = peak_memory()
    started = time.perf_counter()
    try:
        decode(picture_from_bytes(data, name))
        outcome = "picture"
    except Exception as exc:
        outcome = type(exc).__name__
    return outcome, time.perf_counter() - started, peak_memory() - before


def peak_memory() -> float:
    """Return the highest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNIT


if __name__ == "__main__":
    main()

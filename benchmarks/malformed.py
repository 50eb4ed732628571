"""`python -m benchmarks.malformed`: the cost of malformed and unusual pictures and decompression bombs.

Decodes 1,000 malformed pictures of 10 formats, 25 bombs and 40 unusual but valid ones as `dsvl batch` does, each in a
new process, and prints the longest time and the most memory beyond that of the process. Fails if one takes 5 seconds or
300 MiB, or ends in anything but a picture or a reported error. Valid pictures with the maximum number of pixels are
listed for comparison: they take more memory, since decoding needs 4 to 5 bytes per pixel.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

from PIL import Image

from benchmarks.timing import describe_machine
from dsvl_cli.engine.pictures.images import decode, picture_from_bytes
from tests.batch.malformed import SEED, bombs, large, malformed, odd

MAX_SECONDS = 5.0
MAX_MEBIBYTES = 300.0
_PATIENCE_SECONDS = 60
_UNIT = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in a MiB
_context = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Cost:
    """The cost of one picture.

    Attributes:
        outcome: `picture`, `ImageError`, the name of another error, or `killed`.
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
    _context.set_forkserver_preload(["benchmarks.timing", "tests.batch.malformed", "dsvl_cli.engine.pictures.images"])
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
    """Whether a picture stayed within the limits."""
    known = cost.outcome in ("picture", "ImageError")
    return known and cost.seconds < MAX_SECONDS and cost.mebibytes < MAX_MEBIBYTES


def measure(name: str, data: bytes) -> Cost:
    """Decode in a new process, which is killed after a minute.

    It is forked from a server that has not decoded anything: encoders start threads, and a fork next to them may wait
    forever for a lock that one of them held.
    """
    receiving, sending = _context.Pipe(duplex=False)
    process = _context.Process(target=decode_once, args=(name, data, sending))
    started = time.perf_counter()
    process.start()
    sending.close()
    try:
        cost = receiving.recv() if receiving.poll(_PATIENCE_SECONDS) else None
    except EOFError:
        cost = None
    process.kill()
    process.join()
    return cost or Cost(name, "killed", time.perf_counter() - started, 0.0)


def decode_once(name: str, data: bytes, sending: Connection) -> None:
    """Decode, and send the cost."""
    Image.init()
    before, started = peak_memory(), time.perf_counter()
    try:
        decode(picture_from_bytes(data, name))
        outcome = "picture"
    except Exception as exc:
        outcome = type(exc).__name__
    sending.send(Cost(name, outcome, time.perf_counter() - started, peak_memory() - before))


def peak_memory() -> float:
    """Return the highest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNIT


if __name__ == "__main__":
    main()

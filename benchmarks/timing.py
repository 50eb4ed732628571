"""Shared timing tools: alternating runs of several candidates, medians, ratios, a table and JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path


def alternate(candidates: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run every candidate once per round, so slow phases affect all, and return the seconds of each run."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            seconds[name].append(run())
    return seconds


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(title: str, seconds: Mapping[str, list[float]], reference: str) -> dict[str, object]:
    """Print medians and their ratios to the reference as a table, and everything as one line of JSON."""
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    print(f"\n{title}\n")
    print(f"{'':40} {'median':>9} {'best':>9} {'worst':>9} {'ratio':>7}")
    for name, runs in seconds.items():
        ratio = medians[name] / medians[reference]
        print(f"{name:40} {medians[name]:8.3f}s {min(runs):8.3f}s {max(runs):8.3f}s {ratio:7.3f}")
    result: dict[str, object] = {
        "benchmark": title,
        "seconds": seconds,
        "medians": medians,
        "ratios": {name: median / medians[reference] for name, median in medians.items()},
        "reference": reference,
        "machine": describe_machine(),
    }
    print(json.dumps(result))
    return result


def describe_machine() -> dict[str, str]:
    """Return the processor and the versions that figures depend on."""
    from dsvl_cli.engine.machine.detect import detect_machine

    machine = detect_machine()
    return {
        "platform": platform.platform(),
        "processor": _name_processor(),
        "cores": str(os.cpu_count()),
        "features": " ".join(sorted(machine.cpu_features)),
        **{name: version(name) for name in ("torch", "transformers", "typer")},
    }


def _name_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())

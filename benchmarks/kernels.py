"""`python -m benchmarks.kernels`: single products and attention of the 1.3b, beside those of torch and torchao.

For each shape, format and number of rows all ways are timed in turn. With one and 16 rows each call multiplies another
copy of the weight, so that it is read from memory. A way is compared with the fastest library way that is right.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.kernel_candidates import CHECKED_OUTS, KINDS, Candidate, Run, list_candidates
from benchmarks.limits import Limits, measure_limits
from benchmarks.results import Result, Row, make_table, publish
from benchmarks.timing import timed
from dsvl_cli.engine.kernels.choose import find_native_fault
from dsvl_cli.engine.kernels.kernels import PlainKernels
from dsvl_cli.engine.kernels.native.compiler import load_library
from dsvl_cli.engine.kernels.native_kernels import NativeKernels

LAYER_SHAPES = ((2048, 2048), (5632, 2048), (2048, 5632))  # out-features, in-features
HEAD_SHAPE = (102400, 2048)
ROWS = (1, 16, 636)
FEW_ROWS = 16  # up to here the weight is read from memory, by copies
COPIED_BYTES = 2**26  # of the copies of a weight: beyond any cache
LENGTHS = (600, 8000)
HEADS, HEAD_DIM = 16, 128
RIGHT = 0.03  # relative error; with activations in 8 bits it is about 0.01
SLOW_SECONDS = 0.7  # what takes longer is called once
ROUND_SECONDS = 0.15  # of the calls of one way in a round
CELL_SECONDS = 1.5  # no round starts later than this
BYTES = {"bf16": 2.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}

COLUMNS = ("product", "rows", "way", "time", "of the best library's", "of the limit", "error")


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to compute something.

    Attributes:
        what: the format and shape.
        rows: of activations; for attention the positions.
        way: whose kernel.
        milliseconds: median of the rounds.
        error: relative to the norm of the float64 result.
        limit: milliseconds that the machine's bandwidth or arithmetic allows.
        library: milliseconds of the fastest library way that is right; None without one.
        library_way: its name.
        is_library: whether it is a library's itself.
    """

    what: str
    rows: int
    way: str
    milliseconds: float
    error: float
    limit: float
    library: float | None = None
    library_way: str = ""
    is_library: bool = False

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the row in the table."""
        return (
            self.what,
            str(self.rows),
            self.way + ("" if self.error < RIGHT else " (wrong)"),
            f"{self.milliseconds:.3f} ms" if self.milliseconds < 10 else f"{self.milliseconds:.1f} ms",
            "" if self.library is None else f"{self.milliseconds / self.library:.2f}",
            f"{100 * self.limit / self.milliseconds:.0f} %",
            f"{self.error:.1e}",
        )


@dataclass(frozen=True, slots=True)
class KernelResult(Result):
    """With columns of its own.

    Attributes:
        measured: the rows of the table.
    """

    measured: Sequence[Measured] = ()

    def table(self) -> str:
        """Return the rows as a Markdown table."""
        return make_table([COLUMNS, *(one.cells() for one in self.measured)])


def measure_products(
    format_name: str,
    shape: tuple[int, int],
    rows: int,
    limits: Limits,
    library: ctypes.CDLL | None,
    rounds: int,
    notes: list[str],
) -> list[Measured]:
    """Measure all ways to multiply some rows by a weight of a shape and format."""
    outs, columns = shape
    generator = torch.Generator().manual_seed(0)
    # Uniform, so that 8-bit numbers fill their range: normal ones seldom reach what overflows in integer sums.
    dense = torch.empty(shape, dtype=torch.bfloat16).uniform_(-0.04, 0.04, generator=generator)
    x = torch.empty((rows, columns)).uniform_(-2, 2, generator=generator)
    size = BYTES[format_name] * outs * columns
    copies = max(1, -int(-COPIED_BYTES // size)) if rows <= FEW_ROWS else 1
    candidates = []
    for name, make in list_candidates(format_name, dense, x, copies, library):
        try:
            candidates.append(make(name))
        except Exception as exc:  # whatever a library raises is what it cannot do here
            notes.append(f"{name}: {summarize(exc)}")
    picked = list(range(rows)) if rows <= FEW_ROWS else [*range(8), *range(rows - 8, rows)]
    exact = x[picked].double()

    def error_of(candidate: Candidate, y: torch.Tensor) -> float:
        return relative_error(y[picked, :CHECKED_OUTS], functional.linear(exact, candidate.weight.double()))

    operations = 2.0 * rows * outs * columns
    rate = limits.rate("bf16" if format_name == "fp16" else format_name)
    limit = 1e3 * max(size / limits.bandwidth, operations / rate)
    what = f"{format_name}, {outs} x {columns}"
    return measure_ways(what, rows, candidates, error_of, limit, rounds, notes)


def measure_ways(
    what: str,
    rows: int,
    candidates: Iterable[Candidate],
    error_of: Callable[[Candidate, torch.Tensor], float],
    limit: float,
    rounds: int,
    notes: list[str],
) -> list[Measured]:
    """Time candidates in turn, and compare each with the fastest library way that is right."""
    end = time.perf_counter() + CELL_SECONDS
    seconds, errors = dict[str, list[float]](), dict[str, float]()
    able: dict[str, Candidate] = {}
    fast: dict[str, int] = {}
    for candidate in candidates:
        try:
            start = time.perf_counter()
            y = candidate.runs[0]()
            first = time.perf_counter() - start
            errors[candidate.name] = error_of(candidate, y)
            if first <= SLOW_SECONDS:
                first = timed(candidate.runs[-1])  # the first one set something up
        except Exception as exc:
            notes.append(f"{candidate.name}, {what}, {rows} rows: {summarize(exc)}")
            continue
        able[candidate.name] = candidate
        if first > SLOW_SECONDS:
            seconds[candidate.name] = [first]
        else:
            fast[candidate.name] = min(len(candidate.runs), max(1, int(ROUND_SECONDS / first)))
    for number in range(rounds):
        if number and time.perf_counter() > end:
            break
        for name, calls in fast.items():
            runs = able[name].runs
            start = number * calls
            chosen = [runs[(start + call) % len(runs)] for call in range(calls)]
            seconds.setdefault(name, []).append(timed(partial(_run_all, chosen)) / calls)
    times = {name: 1e3 * statistics.median(found) for name, found in seconds.items()}
    right = [name for name in times if able[name].is_library and errors[name] < RIGHT]
    best = min(right, key=times.__getitem__, default="")
    return [
        Measured(
            what, rows, name, times[name], errors[name], limit, times.get(best), best, candidate.is_library
        )
        for name, candidate in able.items()
    ]  # fmt: skip


def _run_all(runs: Iterable[Run]) -> None:
    for run in runs:
        run()


def measure_attention(
    length: int, limits: Limits, library: ctypes.CDLL | None, rounds: int, notes: list[str]
) -> list[Measured]:
    """Measure attention of one query over a cache in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn((1, HEADS, HEAD_DIM), generator=generator)
    cache = torch.randn((2, HEADS, length, HEAD_DIM), generator=generator).bfloat16()
    caches = [cache.clone() for _ in range(max(1, -(-COPIED_BYTES // cache.nbytes)))]
    scale = HEAD_DIM**-0.5
    half = query.bfloat16()[:, :, None]
    candidates = []
    ways = {} if library is None else {"dsvl native": NativeKernels(library)}
    for name, kernels in {**ways, "dsvl with DSVL_NATIVE=0": PlainKernels()}.items():
        runs: list[Run] = [partial(kernels.attend, query, [(one[0], one[1])], [length], scale) for one in caches]
        candidates.append(Candidate(name, False, runs, query))
    attend = functional.scaled_dot_product_attention
    theirs: list[Run] = [partial(attend, half, one[:1], one[1:], scale=scale) for one in caches]
    candidates.append(Candidate("torch scaled_dot_product_attention", True, theirs, query))
    exact = attend(query.double()[:, :, None], cache[:1].double(), cache[1:].double(), scale=scale)[:, :, 0]
    limit = 1e3 * cache.nbytes / limits.bandwidth

    def error_of(_: Candidate, y: torch.Tensor) -> float:
        return relative_error(y.view(exact.shape), exact)

    return measure_ways("attention, bf16", length, candidates, error_of, limit, rounds, notes)


def relative_error(y: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the norm of the difference over that of the exact result; infinite for numbers that are not finite."""
    error = float((y.double() - exact).norm() / exact.norm())
    return error if error == error else float("inf")


def summarize(exc: Exception) -> str:
    """Return the first line of an error."""
    lines = str(exc).splitlines()
    return f"{type(exc).__name__}: {lines[0][:120] if lines else ''}"


def make_rows(measured: Iterable[Measured]) -> list[Row]:
    """Make the rows for the line of JSON."""
    return [
        Row(
            f"{one.what}, {one.rows}, {one.way}", one.milliseconds, "ms", one.library_way, one.library, limit=one.limit
        )
        for one in measured
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5, help="at most; slow ways get fewer")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the section into this file, as RESULTS.md")
    args = parser.parse_args()
    limits = measure_limits(args.threads)
    torch.set_num_threads(args.threads)
    compiled = load_library()
    library, notes = compiled.library, list[str]()
    fault = None if library is None else find_native_fault(library)
    if library is None or fault is not None:
        notes.append(f"no native kernels: {fault or compiled.reason}")
        library = None
    found: list[Measured] = []
    cells = [(shape, rows) for shape in LAYER_SHAPES for rows in ROWS] + [(HEAD_SHAPE, 1)]
    with torch.inference_mode():
        for name in KINDS:
            for shape, rows in cells:
                found += measure_products(name, shape, rows, limits, library, args.rounds, notes)
        for length in LENGTHS:
            found += measure_attention(length, limits, library, args.rounds, notes)
    rates = ", ".join(f"{rate / 1e9:.0f} ({name})" for name, rate in limits.rates.items())
    notes = [
        f"{args.threads} threads; memory {limits.bandwidth / 1e9:.1f} GB/s, products of matrices {rates} Gop/s",
        f"the error is relative to the float64 product with the same quantized weight; wrong: {RIGHT:g} and more",
        "libraries get activations in bfloat16 where they need them; converting them is not counted",
        *dict.fromkeys(notes),
    ]
    raw: dict[str, Any] = {"measured": [asdict(one) for one in found]}
    publish(KernelResult("kernels", "Kernels", make_rows(found), notes, raw, found), args.results)


if __name__ == "__main__":
    main()

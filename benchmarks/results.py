"""Results of a benchmark: rows with their goals, as a table, as one line of JSON, and as a section of RESULTS.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from benchmarks.cpu import detect_kind
from benchmarks.timing import describe_machine

RESULTS = Path(__file__).parent / "RESULTS.md"
_HEADER = """# Results

What `python -m benchmarks` measured last: a section for each command and kind of CPU (by its instruction sets), which a
run on another kind leaves as it is. Each can be measured again alone. Absolute times differ between machines: read the
ratios. A ratio is ours over theirs, or for "at least" how many times as fast ours is.
The limit is what the machine allows: the bytes that must be read over the measured bandwidth of the memory, the
operations over the measured rate of products of matrices.
"""
_RATE_UNITS = ("/min", "%")

Unit = Literal["s", "ms", "GB", "/min", "%"]


@dataclass(frozen=True, slots=True)
class Goal:
    """The target of a figure.

    Attributes:
        kind: `at most` and `at least` bound the ratio to a reference; `under` bounds the value itself.
        bound: of the ratio or the value.
    """

    kind: Literal["at most", "at least", "under"]
    bound: float


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        what: what was measured.
        value: ours, in `unit`.
        unit: `s`, `ms` and `GB` are better when lower, `/min` and `%` when higher.
        beside: what `reference` belongs to.
        reference: a peer's figure in the same unit, or another figure to compare with.
        goal: None where the row only informs.
        limit: what the machine allows, in `unit`.
    """

    what: str
    value: float
    unit: Unit
    beside: str = ""
    reference: float | None = None
    goal: Goal | None = None
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours divided by theirs; for `at least`, how many times faster ours is."""
        if self.reference is None:
            return None
        inverted = self.goal is not None and self.goal.kind == "at least" and self.unit not in _RATE_UNITS
        above, below = (self.reference, self.value) if inverted else (self.value, self.reference)
        return above / below if below else None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a reference."""
        if self.goal is None:
            return None
        if self.goal.kind == "under":
            return self.value < self.goal.bound
        if self.ratio is None:
            return None
        return self.ratio <= self.goal.bound if self.goal.kind == "at most" else self.ratio >= self.goal.bound

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the row in the table."""
        goal = ""
        if self.goal is not None:
            bound = f"{self.goal.bound:.3g}" + (f" {self.unit}" if self.goal.kind == "under" else "")
            goal = f"{self.goal.kind} {bound}"
        return (
            self.what,
            _format(self.value, self.unit),
            self.beside,
            _format(self.reference, self.unit),
            "" if self.ratio is None else f"{self.ratio:.3f}" if self.ratio < 0.1 else f"{self.ratio:.2f}",
            goal,
            {True: "yes", False: "no", None: ""}[self.reached],
            _format(self.limit, self.unit),
        )


COLUMNS = ("figure", "ours", "beside", "theirs", "ratio", "goal", "reached", "limit")


def _format(value: float | None, unit: Unit) -> str:
    if value is None:
        return ""
    digits = 1 if unit in ("ms", "%") else 2
    return f"{value:.{digits}f}{unit}" if unit == "/min" else f"{value:.{digits}f} {unit}"


def make_table(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns; the first line is its head."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "| " + " | ".join(cell.ljust(wide) for cell, wide in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (wide + 2) for wide in widths) + "|")
    return "\n".join(text)


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found.

    Attributes:
        name: the name of the command.
        title: the title of the section.
        rows: the rows of the table.
        notes: sentences below the table: how it was measured, what was skipped.
        raw: every single run, for the line of JSON.
    """

    name: str
    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """Return the rows as a Markdown table with aligned columns."""
        return make_table([COLUMNS, *(row.cells() for row in self.rows)])

    def section(self) -> str:
        """Return the section of RESULTS.md."""
        machine = describe_machine()
        versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers", "typer"))
        processor = f"{machine['processor']} ({detect_kind()})"
        where = f"{date.today().isoformat()}, {processor}, {machine['cores']} cores, {versions}."
        notes = "".join(f"\n- {note}" for note in self.notes)
        return (
            f"## {self.title}\n\n`python -m benchmarks.{self.name}`; {where}\n\n{self.table()}\n{notes}".rstrip() + "\n"
        )

    def as_json(self) -> str:
        """Return everything as one line of JSON."""
        rows = [{**asdict(row), "ratio": row.ratio, "reached": row.reached} for row in self.rows]
        return json.dumps(
            {
                "benchmark": self.name,
                "cpu": detect_kind(),
                "rows": rows,
                "notes": self.notes,
                "raw": self.raw,
                "machine": describe_machine(),
            }
        )


def publish(result: Result, path: Path | None) -> None:
    """Print the table and the JSON, and write the section if a file is given."""
    print(f"\n{result.title}\n\n{result.table()}\n")
    for note in result.notes:
        print(f"- {note}")
    print(result.as_json())
    if path is not None:
        before = path.read_text(encoding="utf-8") if path.exists() else _HEADER
        after = replace_section(before, result.name, detect_kind(), result.section())
        path.write_text(after, encoding="utf-8")


def replace_section(text: str, name: str, cpu: str, section: str) -> str:
    """Replace the section of a benchmark on a kind of CPU; a new one goes behind those of the same benchmark."""
    begin, end = f"<!-- {name}, {cpu}: begin -->", f"<!-- {name}, {cpu}: end -->"
    block = f"{begin}\n{section.rstrip()}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _: block, text, count=1)
    others = list(re.finditer(f"<!-- {re.escape(name)}, [^:\n]*: end -->\n?", text))
    if not others:
        return f"{text.rstrip()}\n\n{block}\n"
    before, after = text[: others[-1].end()], text[others[-1].end() :]
    return f"{before.rstrip()}\n\n{block}\n{after}"

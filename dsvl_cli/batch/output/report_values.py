"""What a report shows of answers, and what its rows are sorted and filtered by. Does not import torch.

A column is an answer, a property of one under a schema, a probability or a disagreement. Its label and its values are
only known once all rows are written: `Columns` collects them on the way, in bounded memory.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsvl_cli.batch.row import ONLY, Answer, Row
from dsvl_cli.engine.samples import Sample

_MOST_COLUMNS = 60  # a schema may allow any names
_MOST_VALUES = 30  # of a column that can be filtered by
_LONGEST = 80  # characters of a value that can be
_OTHERS = 3  # choices that are shown beside the answer
_LEAST = 0.01  # probability of one that is

Key = str | int | float


@dataclass(slots=True)
class Column:
    """Something that rows can be sorted by, and filtered by if there are few values.

    Attributes:
        index: its place among all columns.
        label: its name.
        falls: whether the highest values come first at first.
        is_free: whether the values are texts in the model's own words, whose order says nothing.
        counts: how often each value occurs; None if there are too many of them, or long ones.
        rows: how many rows have a value.
    """

    index: int
    label: str
    falls: bool = False
    is_free: bool = False
    counts: Counter[Key] | None = field(default_factory=Counter)
    rows: int = 0

    @property
    def is_filter(self) -> bool:
        """Whether rows can be filtered by it: free texts only if they repeat."""
        return bool(self.counts) and not (self.is_free and self.rows < 2 * len(self.counts or ()))

    @property
    def is_order(self) -> bool:
        """Whether rows can be sorted by it."""
        return self.is_filter or not self.is_free

    def values(self) -> list[tuple[str, str, str]]:
        """Return the values with their JSON and their number of rows, numbers first."""
        counts = sorted((self.counts or {}).items(), key=lambda pair: (isinstance(pair[0], str), pair[0]))
        return [(json.dumps(key), str(key), f"{count:,}") for key, count in counts]

    def add(self, value: Any) -> Key | None:
        """Count a value; return what stands for it in the page, or None if nothing needs to."""
        key = _to_key(value)
        self.rows += 1
        if isinstance(key, str) and len(key) > _LONGEST:
            self.counts = None
            key = key[:_LONGEST]
        if self.counts is not None:
            self.counts[key] += 1
            if len(self.counts) > _MOST_VALUES:
                self.counts = None
        return key if self.is_order or self.counts is not None else None


@dataclass(frozen=True, slots=True)
class Part:
    """A value as it is shown.

    Attributes:
        label: the name of the property; "" for an answer as a whole.
        text: of the value.
        column: the index of its column; None if it has none.
    """

    label: str
    text: str
    column: int | None


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """An answer as it is shown.

    Attributes:
        label: the name of the question.
        parts: its value, or each property of it.
        has_properties: whether the parts are properties.
        chances: the probabilities of a choice and of others that are likely too.
        disagreement: how far samples disagree, in words; "" if there are none.
        samples: all of them.
    """

    label: str
    parts: tuple[Part, ...]
    has_properties: bool
    chances: str = ""
    disagreement: str = ""
    samples: tuple[str, ...] = ()


class Columns:
    """Collects the columns of a report, and gives each row its keys in their order."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, ...], Column] = {}

    def __iter__(self) -> Iterator[Column]:
        return iter(self._columns.values())

    def find_first(self) -> Column | None:
        """Return what rows are sorted by at first: how far samples disagree, if there are any; None for their names."""
        highest = self._columns.get(("disagreement",))
        return highest or next((column for column in self if column.falls), None)

    def add(self, row: Row) -> tuple[list[ShownAnswer], str]:
        """Return the answers of a row as they are shown, and its keys as a JSON list; "" if it has none."""
        keys: dict[int, Key] = {}
        shown = [self._show(name, answer, keys) for name, answer in row.answers.items()]
        if len(row.answers) > 1:
            chances = [chance for answer in row.answers.values() if (chance := answer.probability) is not None]
            # Of a row with several: what a person looks for is its weakest answer.
            if len(chances) > 1:
                self._number(keys, ("probability",), "lowest probability", min(chances))
            if row.disagreement is not None:
                self._number(keys, ("disagreement",), "highest disagreement", row.disagreement, falls=True)
        line = [keys.get(index) for index in range(max(keys) + 1)] if keys else []
        return shown, json.dumps(line, separators=(",", ":")) if line else ""

    def _show(self, name: str, answer: Answer, keys: dict[int, Key]) -> ShownAnswer:
        label = "" if name == ONLY else name
        chances, disagreement, samples = "", "", answer.samples
        if answer.probabilities is not None and (chance := answer.probability) is not None:
            self._number(keys, ("probability", name), _join(label, "probability"), chance)
            chances = _rank(answer.text, chance, answer.probabilities)
        if (gap := answer.disagreement) is not None:
            self._number(keys, ("disagreement", name), _join(label, "disagreement"), gap, falls=True)
            disagreement = f"{len(samples)} samples, disagreement {gap:.2f}"
        parts: list[Part] = []
        has_properties = isinstance(answer.value, dict) and bool(answer.value)
        if has_properties:
            for key, value in answer.value.items():
                column = self._value(keys, ("value", name, key), f"{name}.{key}" if label else key, value)
                parts.append(Part(key, show_value(value), column))
        else:
            is_free = answer.probabilities is None and answer.result is answer.text  # it has no value then
            column = self._value(keys, ("value", name), label or "answer", answer.result, is_free=is_free)
            parts.append(Part("", show_value(answer.result), column))
        shown = tuple(map(_show_sample, samples))
        return ShownAnswer(label, tuple(parts), has_properties, chances, disagreement, shown)

    def _value(
        self, keys: dict[int, Key], place: tuple[str, ...], label: str, value: Any, *, is_free: bool = False
    ) -> int | None:
        return self._put(keys, place, Column(len(self._columns), label, is_free=is_free), value)

    def _number(
        self, keys: dict[int, Key], place: tuple[str, ...], label: str, number: float, *, falls: bool = False
    ) -> None:
        self._put(keys, place, Column(len(self._columns), label, falls, counts=None), number)

    def _put(self, keys: dict[int, Key], place: tuple[str, ...], new: Column, value: Any) -> int | None:
        """Add a value to its column; return the index of the column, or None if there are too many."""
        if place not in self._columns and len(self._columns) >= _MOST_COLUMNS:
            return None
        column = self._columns.setdefault(place, new)
        key = column.add(value)
        if key is None:
            return None
        keys[column.index] = key
        return column.index


def show_value(value: Any) -> str:
    """Return a JSON value as a person reads it: texts as they are, a list of texts and numbers with commas."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and not any(isinstance(part, (list, dict)) for part in value):
        return ", ".join(map(show_value, value))
    return json.dumps(value, ensure_ascii=False)


def _show_sample(sample: Sample) -> str:
    return show_value(sample.result) if sample.error is None else f"({sample.error})"


def _to_key(value: Any) -> Key:
    """Return a finite number as it is, and anything else as the text that is shown."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    key: Key = value if is_number else show_value(value)
    return key


def _rank(text: str, chance: float, probabilities: Mapping[str, float]) -> str:
    """Write the probability of the answer, and those of others that are likely too."""
    others = [(part, other) for other, part in probabilities.items() if other != text and part >= _LEAST]
    others.sort(key=lambda pair: -pair[0])
    return " · ".join([f"{chance:.1%}", *(f"{other} {part:.1%}" for part, other in others[:_OTHERS])])


def _join(label: str, what: str) -> str:
    return f"{label}: {what}" if label else what

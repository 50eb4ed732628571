"""Writes complete answers: JSON, one of a list, several samples; and says what there is to say about them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dsvl_cli.engine.conversation import Reply, Stats
from dsvl_cli.engine.units import format_bytes
from dsvl_cli.terminal.plain import open_answer

if TYPE_CHECKING:
    from dsvl_cli.terminal.console import Console

_MOST_SHOWN = 5  # choices


def write_value(console: Console, value: object) -> None:
    """Write JSON: indented on a terminal, on one line elsewhere."""
    write_line(console, json.dumps(value, ensure_ascii=False, indent=2 if console.answer_is_terminal else None))


def write_line(console: Console, text: str) -> None:
    """Write an answer as it is."""
    answer = open_answer(console, plain=True)
    answer.write(text)
    answer.close()


def write_paragraphs(console: Console, texts: Sequence[str]) -> None:
    """Write several answers with an empty line between them; on a terminal they have numbers."""
    for number, text in enumerate(texts, 1):
        answer = open_answer(console, plain=console.plain)
        mark = f"{number}. " if console.answer_is_terminal else ""
        answer.write(mark + textwrap.indent(text, " " * len(mark)).lstrip())
        answer.close()
        if number < len(texts):
            console.write("\n")


def say_probabilities(console: Console, probabilities: Mapping[str, float]) -> None:
    """Say how likely the likeliest of a list are, if the answer is read on a terminal."""
    if console.answer_is_terminal and probabilities:
        ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
        console.status(", ".join(f"{text} {chance:.1%}" for text, chance in ranked[:_MOST_SHOWN]))


def describe_cut(reply: Reply, most_tokens: int) -> str:
    """Say where an answer was cut off: at the limit, or at the context's end."""
    if reply.stats is not None and reply.stats.generated_tokens < most_tokens:
        return "cut off: the model's context is full"
    return f"cut off at {most_tokens:,} tokens: --max-new-tokens N changes the limit"


def describe_stats(stats: Stats) -> str:
    """Return the statistics of an answer as one line."""
    parts = [
        f"first token after {stats.prompt_seconds:.2f} s ({stats.prompt_tokens:,} prompt tokens"
        + (f", {stats.cached_tokens:,} cached)" if stats.cached_tokens else ")"),
        f"{stats.generated_tokens:,} tokens",
    ]
    if stats.tokens_per_second:
        parts.append(f"{stats.tokens_per_second:.1f} tokens/s")
    if stats.peak_memory_bytes:
        parts.append(f"peak memory {format_bytes(stats.peak_memory_bytes)}")
    return ", ".join(parts)

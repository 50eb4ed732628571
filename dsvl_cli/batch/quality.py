"""Detects degenerate answers: empty, looping, echoing the prompt, or cut off. Does not import torch.

A loop is an exact repetition of the same piece of text, as models produce when they are certain of each next token.
Lists, tables, numbers and code repeat legitimately, so the more a piece resembles them, the more repetitions it takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dsvl_cli.engine.conversation import FinishReason
from dsvl_cli.engine.options import IMAGE_MARK

EMPTY = "empty"
REPEATS = "repeats itself"
ECHO = "echoes the prompt"
CUT = "cut off at the limit"
# Retried suspect answers are sampled: greedy decoding would repeat the same answer.
RETRY_SAMPLING: Mapping[str, Any] = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 1}

# Samples keep the temperature that was asked for, by which they are compared with those of other rows.
RETRY_SAMPLES: Mapping[str, Any] = {name: RETRY_SAMPLING[name] for name in ("repetition_penalty", "seed")}

_MAX_PERIOD = 250  # longest repeated piece, in characters
# A piece at least four times in a row; the shortest at each position, so "aaaa" is "a" four times.
_RUN = re.compile(rf"(.{{1,{_MAX_PERIOD}}}?)\1{{3,}}", re.DOTALL)
_WORD = re.compile(r"\w+")
_STRUCTURE = re.compile(r"[|\t{}\[\]()<>=;\\/`]|^\s*(?:[-*+•]|\d+[.)])\s", re.MULTILINE)
_GRAM = 6  # words
_MIN_GRAMS = 60
_MIN_SHARE_NEW = 0.3


def find_suspicion(text: str, prompt: str, finish_reason: FinishReason) -> str | None:
    """Return why an answer is probably degenerate, or None if it looks fine.

    Args:
        text: the answer.
        prompt: the prompt it answers.
        finish_reason: why the answer ended.
    """
    if not any(character.isprintable() and not character.isspace() for character in text):
        return EMPTY
    if _loops(text, was_cut=finish_reason == "length"):
        return REPEATS
    if _echoes(text, prompt):
        return ECHO
    return CUT if finish_reason == "length" else None


def _loops(text: str, *, was_cut: bool) -> bool:
    for run in _RUN.finditer(text):
        piece, length = run[1], len(run[0])
        at_end = was_cut and len(text) - run.end() < len(piece)
        if length // len(piece) >= _allowed_times(piece, length, at_end=at_end):
            return True
    return _goes_round(text)


def _allowed_times(piece: str, length: int, *, at_end: bool) -> float:
    """Return from how many repetitions on a piece is a loop; `length` is that of all repetitions together."""
    never = float("inf")
    words = [word for word in _WORD.findall(piece) if not any(character.isdigit() for character in word)]
    if not words:  # numbers, rules, dots: tables repeat them by the hundred, but rarely right up to the limit
        return 30 if at_end and length >= 200 else never
    distinct = len(set(words))
    if _STRUCTURE.search(piece) or ("\n" in piece and distinct < 4):
        if at_end and length >= 60:
            return 6
        return 16 if length >= 240 else never
    # In scripts without spaces, a whole sentence is one "word".
    if distinct >= 3 or (distinct == 1 and not words[0].isascii() and len(words[0]) >= 6):
        return 4
    return 10 if length >= 30 else never


def _goes_round(text: str) -> bool:
    """Whether a long prose text mostly repeats itself, even if its parts are reordered."""
    if _STRUCTURE.search(text):
        return False
    words = text.casefold().split()
    grams = [tuple(words[n : n + _GRAM]) for n in range(len(words) - _GRAM + 1)]
    prose = sum(word.strip(".,;:!?\"'").isalpha() for word in words)
    if len(grams) < _MIN_GRAMS or prose < 0.8 * len(words):
        return False
    return len(set(grams)) < _MIN_SHARE_NEW * len(grams)


def _echoes(text: str, prompt: str) -> bool:
    """Whether the answer is the prompt, once or repeated, or begins with it and adds less than its length."""
    asked = list(_folded(prompt.replace(IMAGE_MARK, " ")))
    said = list(_folded(text))
    if not asked or len(said) < len(asked):
        return False
    if len(said) % len(asked) == 0 and said == asked * (len(said) // len(asked)):
        return True
    return len(asked) >= 4 and said[: len(asked)] == asked and len(said) < 2 * len(asked)


def _folded(text: str) -> Iterator[str]:
    return (word.casefold() for word in _WORD.findall(text))

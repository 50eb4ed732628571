"""Wordings: templates with alternatives, variation of questions, and small pieces of English."""

from __future__ import annotations

import random
import re

_STRAY_WORDS = (
    "please now just really here kindly well then also today quickly maybe actually exactly again carefully "
    "honestly friend robot sir hello hey ok so good day thanks think know want need would like ask question answer "
    "look see tell say short simple word words one you me i my is it that this which can could the a of in on at "
    "for to and do not"
)
_FILLERS = tuple(_STRAY_WORDS.split(" "))
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_PICTURE_WORD = re.compile(r"\bpicture\b")
PICTURE_WORDS = ("picture", "picture", "image", "image", "photo", "drawing", "pic")


def expand(template: str, rng: random.Random) -> str:
    """Return a random wording of a template: each `[a|b|c]` is replaced by an alternative, innermost first."""
    while (match := _CHOICE.search(template)) is not None:
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    return template.strip()


def vary(question: str, rng: random.Random) -> str:
    """Vary a question: politeness, spelling, case, punctuation, stray words or typos."""
    word = rng.choice(PICTURE_WORDS)
    if word != "picture":
        question = _PICTURE_WORD.sub(word, question).replace("pictures", word + "s")
    if rng.random() < 0.35:
        question = question.replace("colour", "color")
    roll = rng.random()
    if roll < 0.06:
        question = rng.choice(("Please ", "Can you ", "Could you ", "Please tell me: ")) + _lower_first(question)
    elif roll < 0.12:
        question = rng.choice(("Hey, ", "Hello! ", "OK, ", "Now, ", "So, ", "Look: ", "Hi, ")) + _lower_first(question)
    elif roll < 0.16:
        question += rng.choice((" Answer briefly.", " Please.", " Be short.", " Thanks.", " Answer in one word."))
    elif roll < 0.22:
        words = question.split(" ")
        stray = [rng.choice(_FILLERS) for _ in range(rng.randint(1, 3))]
        at = rng.choice((0, len(words)))
        question = " ".join(words[:at] + stray + words[at:])
    elif roll < 0.25 and len(question) > 12:
        at = rng.randrange(1, len(question) - 2)
        question = question[:at] + question[at + 1] + question[at] + question[at + 2 :]
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.15:
        question = question.rstrip("?.")
    return question


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def article(phrase: str) -> str:
    """Return the phrase with `a` or `an` before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def capitalized(text: str) -> str:
    """Return the text with an upper-case first letter and the rest unchanged."""
    return text[:1].upper() + text[1:]


def joined(phrases: list[str]) -> str:
    """Join phrases: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]


def in_place(slot: str) -> str:
    """Return a slot with its preposition: `at the top left`, `on the left`, `in the centre`."""
    return {"left": "on the ", "right": "on the ", "centre": "in the "}.get(slot, "at the ") + slot

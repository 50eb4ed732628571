"""Listeners that remember what they are told."""

from __future__ import annotations

from dsvl_cli.engine.progress import Choice, Silence


class Ear(Silence):
    """Remembers notes and choices."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.choices: list[Choice] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def choice(self, choice: Choice) -> None:
        self.choices.append(choice)


class StrictEar(Ear):
    """The same where there must be no progress to report."""

    def progress(self, what: str, done: int, total: int) -> None:
        raise AssertionError(what)

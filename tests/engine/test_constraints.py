from __future__ import annotations

import pytest

from dsvl_cli.engine.constraints import OneOf, split_choices
from dsvl_cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red,green,blue", ("red", "green", "blue")),
        (" red , green ", ("red", "green")),
        ("a red circle\na blue, wide square\n", ("a red circle", "a blue, wide square")),
        ("red\r\ngreen\r\n\r\n", ("red", "green")),
        ("red,,blue", ("red", "", "blue")),
    ],
)
def test_lists_are_split_at_commas_or_lines(text: str, expected: tuple[str, ...]) -> None:
    assert split_choices(text) == expected


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (("red", ""), "one of the choices is empty"),
        (("red", " "), "one of the choices is empty"),
        (("red", "blue", "red"), "the choice 'red' is given twice"),
        (("red", "red "), "the choice 'red' is given twice"),
        (("red",), "at least two choices"),
        ((), "at least two choices"),
    ],
)
def test_lists_that_are_none_are_refused(choices: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OneOf(choices)

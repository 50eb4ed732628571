from __future__ import annotations

import pytest

from dsvl_cli.terminal.chat.input.blocks import block_content, is_open_block


@pytest.mark.parametrize("text", ['"""', '"""one\ntwo', ' """\none', 'say """', 'explain: """\ncode', '""""', '"""""'])
def test_a_begun_block_is_open(text: str) -> None:
    assert is_open_block(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        '"""a"""',
        '"""a""" b',
        'what is """a""" here?',
        '"""\na\nb\n"""',
        'explain: """\ncode\n"""',
        '"""\ncode\n""" please',
        '""""""',
        '""',
        'def f():\n    """Pasted code\n    is complete',
    ],
)
def test_other_text_is_not(text: str) -> None:
    assert not is_open_block(text)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('"""\na\n b\n"""', "a\n b"),
        ('"""a"""', "a"),
        ("plain", "plain"),
        ('"""never ended\nhere', "never ended\nhere"),
        ('explain: """\ncode\n"""', "explain: \ncode"),
        ('"""\na\n"""\nb?', "a\n\nb?"),
        ('what is """a""" here?', 'what is """a""" here?'),
        ('def f():\n    """Doc."""', 'def f():\n    """Doc."""'),
    ],
)
def test_the_fences_are_not_part_of_the_message(text: str, content: str) -> None:
    assert block_content(text) == content

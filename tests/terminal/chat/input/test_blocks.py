from __future__ import annotations

import pytest

from dsvl_cli.terminal.chat.input.blocks import block_content, is_open_block


@pytest.mark.parametrize("text", ['"""', '"""one\ntwo', ' """\none', '"""a""" b', '""""', '"""""'])
def test_a_begun_block_is_open(text: str) -> None:
    assert is_open_block(text)


@pytest.mark.parametrize("text", ["", "a", 'say """', '"""a"""', '"""\na\nb\n"""', '""""""', '""'])
def test_other_text_is_not(text: str) -> None:
    assert not is_open_block(text)


@pytest.mark.parametrize(
    ("text", "content"),
    [('"""\na\n b\n"""', "a\n b"), ('"""a"""', "a"), ("plain", "plain"), ('"""never ended\nhere', "never ended\nhere")],
)
def test_the_fences_are_not_part_of_the_message(text: str, content: str) -> None:
    assert block_content(text) == content

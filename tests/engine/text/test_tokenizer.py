"""Tokenizers that could take the time or the memory of the machine are refused, and published ones are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.text.tokenizer import is_explosive, read_tokenizer
from dsvl_cli.errors import DsvlError
from tests.engine.checkpoint.hostile import list_variants

VARIANTS = {variant.name: variant for variant in list_variants()}
# Of DeepSeek, GPT-2, GPT-4 and Llama 3.
PUBLISHED = (
    r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
)  # fmt: skip
EXPLOSIVE = (
    "(a+)+$", "(a|a|b|b)*", "(.*)*x", "((a*))+", r"(\w+\s?)+\d{9}$", "(?:x+){5}", "(a(b|c))*", "([a-z]+)*", r"(\(+)+"
)  # fmt: skip


@pytest.mark.parametrize("pattern", PUBLISHED)
def test_published_patterns_are_harmless(pattern: str) -> None:
    assert not is_explosive(pattern)


@pytest.mark.fault("hostile tokenizer")
@pytest.mark.parametrize("pattern", EXPLOSIVE)
def test_patterns_that_try_all_ways_are_found(pattern: str) -> None:
    assert is_explosive(pattern)
    assert is_explosive(f"x|{pattern}")


@pytest.mark.fault("hostile tokenizer")
@pytest.mark.parametrize("pattern", ["(", ")", "[", "[[", "\\", "]", "*", "(()", "a{", "[\\"])
def test_patterns_that_are_none_are_no_bug(pattern: str) -> None:
    is_explosive(pattern)


@pytest.mark.fault("hostile tokenizer")
@pytest.mark.parametrize(
    "name",
    [
        "tokenizer: a pattern that tries all ways", "tokenizer: a megabyte for each letter",
        "tokenizer: a text before each", "tokenizer: a decoder that grows", "tokenizer: 200 MB",
    ],
)  # fmt: skip
def test_a_tokenizer_that_is_too_expensive_is_refused(name: str, tmp_path: Path) -> None:
    folder = VARIANTS[name].make(tmp_path / "variant")
    with pytest.raises(DsvlError):
        read_tokenizer(folder / "tokenizer.json")


def test_the_embedded_tokenizer_is_read() -> None:
    assert read_tokenizer(EMBEDDED_FOLDER / "tokenizer.json").get_vocab_size() == 1024

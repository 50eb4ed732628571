from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.terminal.sanitize import sanitize, sanitize_line
from tests.terminal.escapes import ESCAPES

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))

ORDINARY = [
    "Plain words, 1 + 1 = 2; tabs\tand\nnewlines.",
    "Größe naïve façade Ελληνικά Русский",
    "日本語のテキスト 한국어 中文",
    "עברית العربية فارسی می\u200cخواهم",
    "हिन्दी क\u200dष বাংলা தமிழ் ไทย",
    "👩\u200d👩\u200d👧 ❤\ufe0f 👍🏽 🇩🇪 1\ufe0f\u20e3",
    "e\u0301 soft\u00adhyphen no\u00a0break ½ ∑ ▌ ─",
]


# Of Unicode's Default_Ignorable_Code_Point without those kept, and other characters that are drawn as nothing.
INVISIBLE = frozenset(
    chr(code)
    for first, last in [
        (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200B),
        (0x200E, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x2800, 0x2800), (0x3164, 0x3164), (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D159, 0x1D159), (0x1D173, 0x1D17A),
        (0xE0000, 0xE0FFF), (0xFDD0, 0xFDEF), (0xFFFE, 0xFFFF), (0x10FFFE, 0x10FFFF),
    ]
    for code in range(first, last + 1)
)  # fmt: skip


def is_harmful(character: str) -> bool:
    if character in INVISIBLE:
        return True
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or (
        unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    )


def test_there_are_sixty_kinds() -> None:
    assert len(ESCAPES) >= 60


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_escape_sequences_become_visible_wherever_they_are_cut(escape: str) -> None:
    assert sanitize(escape) != escape
    for position in range(len(escape) + 1):
        shown = sanitize(escape[:position]) + sanitize(escape[position:])
        assert shown == sanitize(escape)
        assert not any(map(is_harmful, shown))


@given(ANY_TEXT)
def test_nothing_harmful_is_left_of_any_text(text: str) -> None:
    assert not any(is_harmful(character) for character in sanitize(text) if character not in "\n\t")
    assert not any(map(is_harmful, sanitize_line(text)))


@given(ANY_TEXT)
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    assert sanitize(sanitize(text)) == sanitize(text)
    assert sanitize_line(sanitize_line(text)) == sanitize_line(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_of_many_scripts_is_unchanged(text: str) -> None:
    assert sanitize(text) == text


@pytest.mark.fault("a character that commands or deceives a terminal", cases=0x110000)
def test_every_code_point_of_unicode() -> None:
    text = "".join(map(chr, range(0x110000)))
    assert not any(is_harmful(character) for character in sanitize(text) if character not in "\n\t")
    assert not any(map(is_harmful, sanitize_line(text)))
    kept = "\u00ad\u200c\u200d\ufe00\ufe0f\u0301\u00a0\u3000"
    assert sanitize_line(kept) == kept


def test_what_is_replaced_can_be_read() -> None:
    assert sanitize("\x1b[31m\x00\x7f") == "␛[31m␀␡"
    assert sanitize("\x9b31m\u202e") == "�31m�"
    assert sanitize("na\udce4me") == r"na\xe4me"


def test_line_ends() -> None:
    assert sanitize("a\r\nb\n\tc\rd\r") == "a\nb\n\tc␍d␍"
    assert sanitize_line("a\r\nb\tc\nd") == "a␍␊b␉c␊d"

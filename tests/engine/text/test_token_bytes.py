from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from dsvl_cli.engine.checkpoint.find import EMBEDDED_FOLDER
from dsvl_cli.engine.text.token_bytes import TokenBytes, show_bytes

TOKENIZER = Tokenizer.from_file(str(EMBEDDED_FOLDER / "tokenizer.json"))
CONTROL = frozenset(token_id for token_id, token in TOKENIZER.get_added_tokens_decoder().items() if token.special)
VOCABULARY = TokenBytes(TOKENIZER, CONTROL)


@given(st.text(max_size=40))
def test_the_bytes_of_tokens_join_to_the_text(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert b"".join(VOCABULARY.find(token_id) or b"" for token_id in ids).decode() == text


def test_every_token_has_the_bytes_that_the_library_decodes() -> None:
    for token_id in range(TOKENIZER.get_vocab_size()):
        data = VOCABULARY.find(token_id)
        if token_id in CONTROL:
            assert data is None
            assert VOCABULARY.name(token_id).startswith("<")
        else:
            assert data
            assert data.decode(errors="replace") == TOKENIZER.decode([token_id])


def test_an_added_token_is_its_own_text() -> None:
    tokenizer = Tokenizer.from_str(TOKENIZER.to_str())
    tokenizer.add_tokens([AddedToken("a <b> 赤", normalized=False)])
    vocabulary = TokenBytes(tokenizer, CONTROL)
    assert vocabulary.find(tokenizer.token_to_id("a <b> 赤") or 0) == "a <b> 赤".encode()


def test_a_tokenizer_of_another_kind_and_an_id_of_no_token() -> None:
    tokenizer = Tokenizer(models.WordLevel({"red": 0, "rot": 1}, unk_token="red"))
    assert TokenBytes(tokenizer, ()).find(1) == b"rot"
    tokenizer.decoder = decoders.Metaspace()
    assert TokenBytes(tokenizer, ()).find(0) == b"red"
    assert TokenBytes(tokenizer, ()).find(7) is None
    assert TokenBytes(tokenizer, ()).name(7) == ""


@pytest.mark.parametrize(
    ("data", "shown"), [(b"", ""), ("größer".encode(), "größer"), (b" \xf0\x9f", r"bytes:\x20\xf0\x9f")]
)
def test_what_is_no_text_is_shown_as_bytes(data: bytes, shown: str) -> None:
    assert show_bytes(data) == shown

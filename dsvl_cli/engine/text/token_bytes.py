"""The bytes that single tokens stand for: a token may be a part of a character, which has no text of its own."""

from __future__ import annotations

import json
from collections.abc import Collection

from tokenizers import Tokenizer

# The bytes that GPT-2's byte-level alphabet writes as themselves; the others are the characters from U+0100 on.
_PLAIN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PLAIN]
_ALPHABET = {chr(byte): byte for byte in _PLAIN} | {chr(256 + index): byte for index, byte in enumerate(_OTHERS)}


class TokenBytes:
    """Looks up the bytes of tokens. The bytes of the tokens of a text, joined, are the text in UTF-8.

    Args:
        tokenizer: of the checkpoint.
        control_ids: ids of control tokens, which no text has.
    """

    def __init__(self, tokenizer: Tokenizer, control_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._control_ids = control_ids
        decoder = tokenizer.decoder
        self._is_byte_level = decoder is not None and json.loads(decoder.__getstate__()).get("type") == "ByteLevel"

    def find(self, token_id: int) -> bytes | None:
        """Return the bytes of a token; None if it is a control token, or no token at all."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None or token_id in self._control_ids:
            return None
        if not self._is_byte_level:
            text: str = self._tokenizer.decode([token_id])
            return text.encode()
        # As the decoder of the library does: a token with another character, such as an added one, is its own text.
        data = [_ALPHABET.get(letter) for letter in token]
        return token.encode() if None in data else bytes(byte for byte in data if byte is not None)

    def name(self, token_id: int) -> str:
        """Return the name of a control token; "" if there is no token with this id."""
        return self._tokenizer.id_to_token(token_id) or ""


def show_bytes(data: bytes) -> str:
    r"""Return the text of bytes, or `bytes:\xf0\x9f` where they are part of a character, as OpenAI's API does."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

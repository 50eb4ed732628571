r"""Make untrusted text safe for a terminal: characters that could move, hide or reorder text become visible.

Each character is handled on its own, so text can be split anywhere and sanitized piece by piece: no piece can complete
an escape sequence, because the ESC (or its C1 form) that would start one is never written.

Replacements:

    C0 controls but newline and tab, DEL        their symbols from U+2400 on: ESC becomes `␛`
    bytes of a file name that are not UTF-8     `\xNN` (Python represents them as the surrogates U+DC80 to U+DCFF)
    C1 controls, bidirectional controls, line and paragraph separators, characters that are drawn as nothing,
    tags, noncharacters, the other surrogates   U+FFFD

Kept because ordinary text needs them: the zero-width joiner and non-joiner, the first 16 variation selectors, the soft
hyphen. The others that are drawn as nothing are `Default_Ignorable_Code_Point` of Unicode, fillers, and blank symbols.
"""

from __future__ import annotations

import re

_REPLACEMENT = "\ufffd"

# Unsafe in any text; newline and tab are added for single lines.
_UNSAFE = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"  # C0, DEL, C1
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069"  # bidirectional controls
    "\\u2028\\u2029"  # line and paragraph separator
    "\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b\\u2060-\\u2065\\u206a-\\u206f"  # invisible
    "\\u2800\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb\\U00013440\\U00016fe4\\U0001bca0-\\U0001bca3"
    "\\U0001d159\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff"  # also tags and more variation selectors
    "\\ud800-\\udfff"  # lone surrogates
    f"\\ufdd0-\\ufdef{''.join(chr(plane * 0x10000 + 0xFFFE) + chr(plane * 0x10000 + 0xFFFF) for plane in range(17))}"
)
_IN_TEXT = re.compile(f"\\r\\n|[{_UNSAFE}]")
_IN_LINE = re.compile(f"[\\n\\t{_UNSAFE}]")


def sanitize(text: str) -> str:
    r"""Make all unsafe characters visible, except newlines and tabs; `\r\n` becomes `\n`."""
    return _IN_TEXT.sub(_visible, text)


def sanitize_line(text: str) -> str:
    """Make all unsafe characters visible, including newlines and tabs."""
    return _IN_LINE.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    found = match.group()
    if found == "\r\n":
        return "\n"
    code = ord(found)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return _REPLACEMENT

"""Multi-line messages between triple quotes."""

from __future__ import annotations

_FENCE = '"""'


def is_open_block(text: str) -> bool:
    """Whether a block has been opened but not closed."""
    stripped = text.strip()
    return stripped.startswith(_FENCE) and (len(stripped) < 2 * len(_FENCE) or not stripped.endswith(_FENCE))


def block_content(text: str) -> str:
    """Return the text without the triple quotes around it."""
    stripped = text.strip()
    if not stripped.startswith(_FENCE):
        return text
    return stripped.removeprefix(_FENCE).removesuffix(_FENCE).strip("\n")

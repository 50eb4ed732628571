"""Multi-line messages between triple quotes, which may begin after other words of the first line."""

from __future__ import annotations

_FENCE = '"""'


def is_open_block(text: str) -> bool:
    """Whether a block has been opened but not closed.

    Only the first line opens one, and it is open until the text has a closing fence. Text pasted at once, such as code
    with fences of its own further down, is as complete as any other.
    """
    return _opens(text) and text.count(_FENCE) % 2 == 1


def block_content(text: str) -> str:
    """Return the text without the triple quotes around its block."""
    stripped = text.strip()
    if stripped.startswith(_FENCE) and "\n" not in stripped and stripped.endswith(_FENCE):
        return stripped.removeprefix(_FENCE).removesuffix(_FENCE)
    if not _opens(text):
        return text
    first, line_end, rest = stripped.partition("\n")
    before, _, after = first.rpartition(_FENCE)
    opened = before + after + line_end
    if rest.count(_FENCE) % 2:
        inside, _, behind = rest.rpartition(_FENCE)
        rest = inside + behind
    return (opened + rest).strip("\n")


def _opens(text: str) -> bool:
    first = text.lstrip().partition("\n")[0]
    return first.count(_FENCE) % 2 == 1

"""A non-interactive chat: lines in, answers out."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from dsvl_cli.engine.encodings import decode_lines
from dsvl_cli.terminal.chat.input.blocks import is_open_block
from dsvl_cli.terminal.chat.stdin import refuse_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dsvl_cli.terminal.chat.services import TurnRecord
    from dsvl_cli.terminal.console import Console


class ScriptLines:
    """Messages from a stream, one per line; the lines between triple quotes are one message."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = False
        self._lines = _decoded_lines(stream)

    def read(self) -> str:
        """Return the next message.

        Raises:
            EOFError: there are no more.
            UsageError: they are a picture, or no text.
        """
        if not self._begun:
            self._begun = True
            refuse_binary(self._stream)
        text = next(self._lines, None)
        if text is None:
            raise EOFError
        while is_open_block(text) and (line := next(self._lines, None)) is not None:
            text += f"\n{line}"
        return text


def _decoded_lines(stream: TextIO) -> Iterator[str]:
    # Bytes if possible: a message that is not UTF-8 must not end the script.
    buffer = getattr(stream, "buffer", None)
    if buffer is not None:
        yield from decode_lines(buffer)
    else:
        yield from (line.removeprefix("\ufeff").rstrip("\r\n") for line in stream)


class NoAnswer:
    """Shows nothing during an answer: `--json` writes the complete turn."""

    def write(self, text: str) -> None:
        """Do nothing."""

    def close(self, interrupted: bool = False) -> None:
        """Do nothing."""


def json_writer(console: Console) -> Callable[[TurnRecord], None]:
    """Return a function that writes each turn as one line of JSON to stdout."""

    def write(record: TurnRecord) -> None:
        console.write(json.dumps(turn_values(record), ensure_ascii=False) + "\n")

    return write


def turn_values(record: TurnRecord) -> dict[str, Any]:
    """Return the JSON values of a turn; file names that are not UTF-8 get replacement characters."""
    stats = None
    if record.stats is not None:
        rates = {"tokens_per_second": record.stats.tokens_per_second}
        stats = {**asdict(record.stats), **rates}
    return {
        "role": "assistant",
        "text": record.answer.text,
        "finish_reason": record.answer.finish_reason,
        "model": record.model,
        "question": record.question.text,
        "pictures": [_encodable(picture.name) for picture in record.question.pictures],
        "notice": record.notice,
        "stats": stats,
    }


def _encodable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

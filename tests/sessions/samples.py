from __future__ import annotations

import hashlib
from typing import Any

from dsvl_cli.engine.conversation import Conversation, Message, Picture

PNG = b"\x89PNG\r\n\x1a\n"


def picture(name: str = "cat.png", data: bytes = PNG + b"cat", **more: Any) -> Picture:
    return Picture(name, data, hashlib.sha256(data).hexdigest(), **{"width": 4, "height": 3, **more})


def question(*parts: str | Picture) -> Message:
    return Message("user", parts)


def answer(text: str, **more: Any) -> Message:
    return Message("assistant", (text,), **{"finish_reason": "stop", **more})


def talk(*messages: Message, system: str | None = None) -> Conversation:
    return Conversation(list(messages), system)

"""What a chat needs from outside the terminal package, and what it reports there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dsvl_cli.engine.conversation import Message, Stats
from dsvl_cli.terminal.chat.attachments import PictureSources
from dsvl_cli.terminal.chat.restoring import AnyModel, ModelCatalogue

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsvl_cli.terminal.chat.conversation_store import ConversationStore, Export
    from dsvl_cli.terminal.plain import AnswerStream


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A turn, for scripts.

    Attributes:
        question: the user's message.
        answer: the whole message, even if this turn only continued it.
        model: the model's name.
    """

    question: Message
    answer: Message
    model: str
    stats: Stats | None
    notice: str | None


@dataclass(frozen=True, slots=True)
class Services:
    """What a chat needs from outside the terminal package.

    Attributes:
        sources: how pictures are obtained.
        store: where conversations are stored.
        export: writes a conversation to a file; raises DsvlError.
        open_answer: starts the display of an answer.
        on_turn: called after every turn.
        models: names that completion offers for `/model`.
        catalogue: knows which models there are.
    """

    sources: PictureSources
    store: ConversationStore
    export: Callable[[Export], None]
    open_answer: Callable[[], AnswerStream]
    on_turn: Callable[[TurnRecord], None] = lambda _: None
    models: tuple[str, ...] = ()
    catalogue: ModelCatalogue = field(default_factory=AnyModel)

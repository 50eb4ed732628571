"""The context of a model: how much of it a conversation takes up, and what of a long one fits into it."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from dsvl_cli.engine.conversation import Conversation
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from dsvl_cli.engine.conversation import ChatModel
    from dsvl_cli.terminal.chat.dialogue import Dialogue
    from dsvl_cli.terminal.chat.settings import ChatSettings
    from dsvl_cli.terminal.console import Console

_NEARLY_FULL = 0.9


class Context:
    """What a chat knows about the context: its use, and the oldest exchanges, which may be left out of the prompt.

    Args:
        console: for warnings and notes.

    Attributes:
        used_tokens: the length of the prompt so far, including attached pictures; None if unknown.
    """

    def __init__(self, console: Console) -> None:
        self.used_tokens: int | None = None
        self._console = console
        self._measured = ""  # the fingerprint of the model that counted the tokens
        self._has_warned = False
        self._left_out: tuple[str, int, int] | None = None  # of which model, at how many turns, how many exchanges

    def is_measured_by(self, model: ChatModel | None) -> bool:
        """Whether `used_tokens` is what this model counts."""
        return model is not None and self.used_tokens is not None and self._measured == model.fingerprint

    def measure(self, dialogue: Dialogue, model: ChatModel | None, settings: ChatSettings) -> None:
        """Count the tokens in use, if there is a model; warn when the context is nearly full."""
        self.used_tokens = None
        if model is None:
            return
        self._measured = model.fingerprint
        try:
            left_out = self._count_left_out(dialogue.conversation, model, settings)
            self.used_tokens = model.count_tokens(keep_newest(dialogue.conversation, left_out))
        except DsvlError:  # a picture that cannot be decoded is reported when it is sent
            return
        self.used_tokens += len(dialogue.attached) * model.image_tokens()
        nearly_full = self.used_tokens >= _NEARLY_FULL * model.context_length
        if nearly_full and not self._has_warned:
            percent = 100 * self.used_tokens // model.context_length
            self._console.warn(f"{percent}% of the context is used: free some with /drop N, /undo or /new")
        self._has_warned = nearly_full

    def fit(self, conversation: Conversation, model: ChatModel, settings: ChatSettings) -> Conversation:
        """Return what to send of a conversation: all of it, or what fits, as the settings want; say if it is less."""
        if settings.overflow == "error":
            return conversation
        before = self._count_left_out(conversation, model, settings)
        shorter, left_out = leave_out_oldest(conversation, model, settings.sampling.max_new_tokens, before)
        self._left_out = (model.fingerprint, _count_turns(conversation), left_out)
        if left_out > before:
            exchanges = "exchange is" if left_out == 1 else f"{left_out} exchanges are"
            self._console.say(f"the context is full: the oldest {exchanges} left out of the prompt")
        return shorter

    def begin_anew(self) -> None:
        """Take note that another conversation follows, of which nothing is left out."""
        self._left_out = None

    def _count_left_out(self, conversation: Conversation, model: ChatModel, settings: ChatSettings) -> int:
        """Return how many exchanges are left out already, unless turns were removed since, or the model changed."""
        if settings.overflow == "error" or self._left_out is None:
            return 0
        fingerprint, turns, left_out = self._left_out
        return left_out if fingerprint == model.fingerprint and _count_turns(conversation) >= turns else 0


def leave_out_oldest(
    conversation: Conversation, model: ChatModel, answer_tokens: int, left_out: int = 0
) -> tuple[Conversation, int]:
    """Return the newest exchanges that fit into the context with an answer, and the number of older ones left out.

    Leaving out another exchange changes the beginning of the prompt, and the KV cache has to be computed again. So as
    many are left out as frees half of the context: until that is used up, each turn only adds to the prompt before.

    The system prompt and the last question are always kept.

    Args:
        conversation: the whole one.
        model: counts the tokens.
        answer_tokens: reserved for the answer, but at most a quarter of the context.
        left_out: the number of exchanges left out of the previous prompt.
    """
    room = model.context_length - min(answer_tokens, model.context_length // 4)
    last = max(0, _count_turns(conversation) - 1)
    left_out = min(left_out, last)

    def fits(number: int, limit: int) -> bool:
        return number == last or model.count_tokens(keep_newest(conversation, number)) <= limit

    if not fits(left_out, room):
        left_out += 1 + bisect_left(range(left_out + 1, last), True, key=lambda number: fits(number, room // 2))
    return keep_newest(conversation, left_out), left_out


def keep_newest(conversation: Conversation, left_out: int) -> Conversation:
    """Return a conversation without its oldest exchanges."""
    starts = [index for index, message in enumerate(conversation.messages) if message.role == "user"]
    if not left_out or not starts:
        return conversation
    start = starts[min(left_out, len(starts) - 1)]
    return Conversation(conversation.messages[start:], conversation.system, is_excerpt=start > 0)


def _count_turns(conversation: Conversation) -> int:
    return sum(message.role == "user" for message in conversation.messages)

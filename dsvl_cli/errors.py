"""What can go wrong, as the user should hear it.

    DsvlError              a message, and a hint that says what to do; exit status 1
    ├── UsageError         the command line itself is wrong; exit status 2
    ├── ImageError         one picture cannot be read; the commands go on with the others
    ├── ContextOverflow    a prompt is longer than the model's context; chat offers to drop something
    ├── MemoryShortage     there is no memory for one answer even alone; its row of a batch says so by this name
    └── SomeFailed         everything was tried, some of it failed and was reported; exit status 1, nothing more printed

A subclass exists only where some code reacts to it. Library errors are wrapped where they happen with
`raise ... from exc`, so that `--debug` shows the whole chain.
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """The exit statuses of every command; 128 + n stands for the signal n, as shells have it."""

    OK = 0
    ERROR = 1
    USAGE = 2
    BUG = 3
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class DsvlError(Exception):
    """An error that is told to the user in one line, with a way out where there is one.

    Args:
        message: what went wrong, one line, without a full stop at its end being needed.
        hint: what the user can do about it.
    """

    status = ExitStatus.ERROR

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DsvlError):
    """The command line contradicts itself or asks for something that does not exist."""

    status = ExitStatus.USAGE


class ImageError(DsvlError):
    """One picture cannot be opened, decoded or fetched."""


class ContextOverflow(DsvlError):
    """A prompt does not fit into the model's context.

    Args:
        prompt_tokens: the length of the prompt, in tokens.
        context_length: how many tokens the model's context holds.
        hint: what the user can do about it.
    """

    def __init__(self, prompt_tokens: int, context_length: int, hint: str | None = None) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens:,} tokens, the model's context holds {context_length:,}",
            hint or "use fewer pictures or a shorter text",
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class MemoryShortage(DsvlError):
    """There is not enough memory for one answer, even alone."""


class SomeFailed(DsvlError):
    """Some inputs failed, and each failure was already told; only the exit status is left to set."""


def is_out_of_memory(exc: BaseException) -> bool:
    """Tell whether the memory ran out: torch says it with an error of its own on GPUs, with a plain one on the CPU."""
    return isinstance(exc, MemoryError) or (
        isinstance(exc, RuntimeError)
        and (type(exc).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(exc))
    )
